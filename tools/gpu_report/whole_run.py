"""Whole runs with networks of the shape of Stable Diffusion 1.5: what waits for the device, what takes time.

python -m gpu_report.whole_run results.jsonl [--small]

The weights are random, on which no time depends. The runs are those of `latentdem`, proximal steps in half
precision, with CUDA graphs and without, and beside them steps of public programs on the same networks.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import latentdem_ext as ext
from benchmarks.baselines import PublicSteps
from benchmarks.whole_run import networks, public_runs
from latentdem import HQS, Blur, LatentDEM, Proximal
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernels
from latentdem.priors import Condition, DiffusersPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.solver.graph import cuda_graphs

from .rows import write_all

SHOWN = 20  # functions and places, the costliest first
STEPS = 50  # of a run
SOME = 10  # of a run that is looked into, and of one that compiles
WARMED_UP = 3  # steps; the second one of a kind is captured, the third replayed
LAUNCHES = ("LaunchKernel", "LaunchKernelExC", "LaunchKernelEx", "GraphLaunch")
PUBLIC_STEPS = 4  # that are measured of a program with hundreds
Measure = Callable[[], list[dict[str, Any]]]


class Run:
    """Restorations of random photographs, some steps of them, and steps of public programs."""

    def __init__(self, device: str, side: int, narrow: int, kernel_size: int) -> None:
        self.device, self.side, self.kernel_size = device, side, kernel_size
        with torch.device(device):  # a processor takes long to draw a thousand million weights
            vae, unet, schedule = networks(narrow)
            text = torch.randn(1, 77, unet.config["cross_attention_dim"])
        schedule = type(schedule).from_config(schedule.config)  # its tables on the CPU, as loaded ones are
        self.denoise = load_kernel_denoiser(device=torch.device(device)).denoise
        half = torch.float16 if device == "cuda" else torch.bfloat16
        self.public = PublicSteps(vae, unet, text, self.denoise, self.photographs(1), half)
        dtype = torch.float16 if device == "cuda" else torch.float32
        vae, unet = deepcopy(vae).to(dtype), deepcopy(unet).to(dtype)
        self.prior = DiffusersPrior(vae, unet, schedule, Condition(text))
        self.prior.latents.accelerate()  # as that of a checkpoint is

    def photographs(self, batch: int) -> Tensor:
        """Blurred noise (batch, 3, side, side)."""
        sharp = torch.rand(batch, 3, self.side, self.side, device=self.device) * 2 - 1
        return ext.blur(sharp, motion_kernels(batch, self.kernel_size, 0.5, 0).to(self.device))

    def __call__(self, batch: int, steps: int, graph: bool) -> Tensor:
        """`steps` steps for a batch of images, as CUDA graphs or not."""
        generator = torch.Generator(self.device).manual_seed(0)
        y = self.photographs(batch)
        kernel = gaussian_kernel(self.kernel_size, 0.3 * self.kernel_size).to(self.device)
        operator = Blur(self.kernel_size, self.denoise, HQS(5, 1e6, centre=True))
        solver = LatentDEM(self.prior, operator, Proximal())
        sigma = torch.full((batch,), 0.02, device=self.device)
        with cuda_graphs(graph):
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
    launches = sum(event.count for event in averages if event.key.endswith(LAUNCHES))
    # The time of a kernel is also counted for the operation that has started it.
    events = [event for event in averages if not there or event.device_type == DeviceType.CUDA]

    def own(event: Any) -> float:
        return event.self_device_time_total if there else event.self_cpu_time_total

    busy = sum(map(own, events))
    rows: list[dict[str, Any]] = [{"function": "all", "calls": launches, "us": busy}]
    for event in sorted(events, key=own, reverse=True)[:SHOWN]:
        rows.append({"function": event.key[:80], "calls": event.count, "us": own(event)})
    return [row | {"share": 1e-6 * row["us"] / total} for row in rows]


def rows_of(run: Run, small: bool) -> Iterator[Measure]:
    """What is measured, the most telling first: functions that return rows."""
    steps, some, batches = (4, 2, (1, 2)) if small else (STEPS, SOME, (1, 4, 16))
    name = f"proximal steps, {run.side} x {run.side}"
    first = "the first steps, with what is compiled at its first use"
    yield partial(with_graphs, run, first, 1, some, graph=True)
    pairs = [(batch, graph) for batch in batches for graph in (True, False)]
    last = pairs.pop()  # the longest, in which the host is hidden in any case
    for batch, graph in pairs:
        yield partial(warmed_up, run, name, batch, steps, graph)
    z = torch.randn(1, 4, run.side // 8, run.side // 8, device=run.device)
    kernel = delta_kernel(run.kernel_size).to(run.device)
    for program, (step, count) in public_runs(run.public).items():
        yield partial(public, program, partial(step, z, kernel), 1 if small else PUBLIC_STEPS, count)
    yield lambda: [
        {"kind": "wait", "place": place, "per_step": count / some}
        for place, count in waits(lambda: run(1, some, graph=False)).most_common(SHOWN)
    ]
    for graph in (False, True):
        yield partial(where, run, some, graph)
    yield partial(warmed_up, run, name, last[0], steps, last[1])


def taken(
    what: str, batch: int, steps: int, of: int, function: Callable[[int, int], object]
) -> list[dict[str, Any]]:
    """The row of `function(batch, steps)`, of a run of `of` steps."""
    there = torch.cuda.is_available()
    if there:
        torch.cuda.reset_peak_memory_stats()
    time_taken = seconds(lambda: function(batch, steps))
    row = {"kind": "whole run", "what": what, "batch": batch, "steps": steps, "s": time_taken}
    if there:
        row["gb"] = 1e-9 * torch.cuda.max_memory_allocated()
    return [row | {"steps_of_a_run": of, "s_per_image": of * time_taken / steps / batch}]


def warmed_up(run: Run, what: str, batch: int, steps: int, graph: bool) -> list[dict[str, Any]]:
    """The row of a run, after another one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # of graphs of another batch
    run(batch, WARMED_UP, graph)
    return with_graphs(run, what, batch, steps, graph)


def with_graphs(run: Run, what: str, batch: int, steps: int, graph: bool) -> list[dict[str, Any]]:
    """The row of a run, with CUDA graphs or without."""
    rows = taken(what, batch, steps, steps, partial(run, graph=graph))
    return [{"graph": on_off(graph)} | row for row in rows]


def on_off(wanted: bool) -> str:
    """As a table has it."""
    return "on" if wanted else "off"


def public(what: str, step: Callable[[], Tensor], steps: int, of: int) -> list[dict[str, Any]]:
    """The row of a public program with `of` steps, of which some are measured."""
    step()
    return taken(what, 1, steps, of, lambda _, count: [step() for _ in range(count)])


def where(run: Run, steps: int, graph: bool) -> list[dict[str, Any]]:
    """Where the time of some steps goes, in all and, without graphs, by function."""
    rows = profiled(lambda: run(1, steps, graph))
    return [{"kind": "profile", "graph": on_off(graph)} | row for row in (rows[:1] if graph else rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows of everything, even after something that failed; returns 0 where all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="networks for a rehearsal")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run(device, 32, 16, 9) if options.small else Run(device, 512, 1, 64)
    return write_all(rows_of(run, options.small), options.out)


if __name__ == "__main__":
    raise SystemExit(main())
