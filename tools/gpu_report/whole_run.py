"""Whole runs with networks of the shape of Stable Diffusion 1.5: what waits for the device, what takes time.

python -m gpu_report.whole_run results.jsonl [--small]

The weights are random, on which no time depends. The run is that of `latentdem`: proximal steps in half
precision.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import latentdem_ext as ext
from benchmarks.whole_run import networks
from latentdem import HQS, Blur, LatentDEM, Proximal, restore
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.priors import Condition, DiffusersPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser

from .rows import write_row

SHOWN = 20  # functions and places, the costliest first


class Run:
    """A restoration of random photographs, some steps of it."""

    def __init__(self, device: str, side: int, narrow: int, kernel_size: int) -> None:
        self.device, self.side, self.kernel_size = device, side, kernel_size
        with torch.device(device):  # a processor takes long to draw a thousand million weights
            vae, unet, schedule = networks(narrow)
            text = torch.randn(1, 77, unet.config["cross_attention_dim"])
        schedule = type(schedule).from_config(schedule.config)  # its tables on the CPU, as loaded ones are
        dtype = torch.float16 if device == "cuda" else torch.float32
        self.prior = DiffusersPrior(vae.to(dtype), unet.to(dtype), schedule, Condition(text))
        self.denoise = load_kernel_denoiser(device=torch.device(device)).denoise

    def __call__(self, batch: int, steps: int) -> Tensor:
        """`steps` steps for a batch of images."""
        generator = torch.Generator(self.device).manual_seed(0)
        sharp = torch.rand(batch, 3, self.side, self.side, device=self.device) * 2 - 1
        y = ext.blur(sharp, motion_kernels(batch, self.kernel_size, 0.5, 0).to(self.device))
        kernel = gaussian_kernel(self.kernel_size, 0.3 * self.kernel_size).to(self.device)
        operator = Blur(self.kernel_size, self.denoise, HQS(5, 1e6, centre=True))
        solver = LatentDEM(self.prior, operator, Proximal())
        sigma = torch.full((batch,), 0.02, device=self.device)
        return solver(y, kernel.repeat(batch, 1, 1, 1), sigma, generator=generator, steps=steps)[0]


def seconds(function: Callable[[], object]) -> float:
    """Seconds until the device has finished."""
    begin = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def waits(function: Callable[[], object]) -> Counter[str]:
    """How often each line of Python made the host wait for the device."""
    there = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if there:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            if there:
                torch.cuda.set_sync_debug_mode("default")
    lines = ((Path(w.filename).parts[-3:], w.lineno) for w in caught if "synchroniz" in str(w.message))
    return Counter(f"{'/'.join(parts)}:{number}" for parts, number in lines)


def profiled(function: Callable[[], object]) -> list[dict[str, Any]]:
    """The functions with the most time of their own on the device, and one row for all together."""
    there = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if there else [])]
    with profile(activities=activities) as profiler:
        total = seconds(function)
    averages = profiler.key_averages()
    launches = sum(event.count for event in averages if "LaunchKernel" in event.key)
    # The time of a kernel is also counted for the operation that has started it.
    events = [event for event in averages if not there or event.device_type == DeviceType.CUDA]

    def own(event: Any) -> float:
        return event.self_device_time_total if there else event.self_cpu_time_total

    busy = sum(map(own, events))
    rows: list[dict[str, Any]] = [{"function": "all", "calls": launches, "us": busy}]
    for event in sorted(events, key=own, reverse=True)[:SHOWN]:
        rows.append({"function": event.key[:80], "calls": event.count, "us": own(event)})
    return [row | {"share": 1e-6 * row["us"] / total} for row in rows]


def rows_of(run: Run, small: bool) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What is measured, the most telling first: functions that return rows."""
    steps, batches = (1, (1, 2)) if small else (10, (1, 4, 16))

    def taken(what: str, batch: int) -> list[dict[str, Any]]:
        row = {"kind": "whole run", "what": what, "batch": batch, "steps": steps}
        row["s"] = seconds(lambda: run(batch, steps))
        return [row | {"s_per_image_of_50": 50 * row["s"] / steps / batch}]

    yield lambda: taken("the first steps, with what is compiled at its first use", 1)
    for batch in batches:
        run(batch, 1)
        yield partial(taken, f"proximal steps, {run.side} x {run.side}", batch)
    yield lambda: [
        {"kind": "wait", "place": place, "per_step": count / steps}
        for place, count in waits(lambda: run(1, steps)).most_common(SHOWN)
    ]
    yield lambda: [{"kind": "profile"} | row for row in profiled(lambda: run(1, steps))]
    yield lambda: blind(run.device, small)


def blind(device: str, small: bool) -> list[dict[str, Any]]:
    """The whole blind restoration of a photograph with the embedded prior."""
    size, steps, kernel_size = (32, 2, 9) if small else (256, None, 33)
    y = ext.blur(torch.rand(1, 3, size, size) * 2 - 1, motion_kernels(1, kernel_size, 0.5, 0))
    call = {"prior": "embedded", "device": device, "boundary": "circular", "steps": steps, "noise_sigma": 0.02}
    taken = seconds(lambda: restore(y, f"blur:size={kernel_size}", None, **call))
    what = f"blind restoration, embedded prior, {size} x {size}"
    return [{"kind": "whole run", "what": what, "batch": 1, "s": taken}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows of everything, even after something that failed; returns 0 where all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="networks for a rehearsal")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run(device, 32, 16, 9) if options.small else Run(device, 512, 1, 64)
    count = failures = 0
    for measure in rows_of(run, options.small):
        try:
            rows = measure()
        except Exception:
            failures += 1
            traceback.print_exc()
            continue
        for row in rows:
            count += 1
            write_row(options.out, row)
    print(f"{count} rows, {failures} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
