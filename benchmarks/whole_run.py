"""Time of whole runs with networks of the shape of Stable Diffusion 1.5 and random weights.

    python -m benchmarks.whole_run [--size 256] [--narrow 4] [--batch 1 4 16] [--out benchmarks/results]

The rows are the order of operations of the authors' release and of DPS, PSLD and FastDiffusionEM, under
autocast (`benchmarks.baselines`), and in half precision the paper's settings with this package and the proximal
E-step with 50 steps. Time does not depend on the weights. All full steps of a run cost the same, and so do the
plain ones: where a run has hundreds, some are measured and the run is their sum. `--narrow 4` divides all
widths by 4, for a processor. With `--prior embedded` photographs are restored as a user restores them
(`benchmarks.photographs`).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, Blur, LatentDEM, Posterior, Proximal
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernels
from latentdem.priors import Condition, DiffusersPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.solver.e_step import EStep
from latentdem.solver.passes import Pass, full_steps
from latentdem.solver.schedules import EVERY_STEP, Skip

from . import photographs
from .baselines import PublicSteps
from .conftest import device_name
from .report import slug
from .rows import DEVICE

MEASURED = 5  # steps of each kind
HALF = torch.float16 if DEVICE.type == "cuda" else torch.bfloat16


def networks(narrow: int) -> tuple[AutoencoderKL, UNet2DConditionModel, DDIMScheduler]:
    """Stable Diffusion 1.5 with all widths divided by `narrow`."""
    vae = AutoencoderKL(
        block_out_channels=tuple(width // narrow for width in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=gcd(32, 128 // narrow),
    )
    unet = UNet2DConditionModel(
        block_out_channels=tuple(width // narrow for width in (320, 640, 1280, 1280)),
        cross_attention_dim=768 // narrow,
        attention_head_dim=8,
        norm_num_groups=gcd(32, 320 // narrow),
    )
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return vae, unet, schedule


def seconds(function: Callable[[], object], repeats: int = MEASURED) -> float:
    """Median time of a call, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def public_runs(public: PublicSteps) -> dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]]:
    """By name: a step of latents and kernel, and how many the program takes; the release first."""
    return {
        "order of the release": (public.release, 1000),
        "DPS, in latents": (public.dps, 1000),
        "PSLD": (public.psld, 1000),
        "FastDiffusionEM, in latents": (public.fast_em, 100),
    }


def measured(batch: int, size: int, kernel_size: int, narrow: int) -> list[dict[str, Any]]:
    """Rows of all runs of a batch of images of `size` pixels, with widths divided by `narrow`."""
    torch.manual_seed(0)
    vae, unet, schedule = networks(narrow)
    vae, unet = vae.to(DEVICE), unet.to(DEVICE)
    text = torch.randn(1, 77, unet.config["cross_attention_dim"], device=DEVICE)
    sharp = torch.rand(batch, 3, size, size, device=DEVICE) * 2 - 1
    y = ext.blur(sharp, motion_kernels(batch, kernel_size, 0.5, 0).to(DEVICE))
    sigma = torch.full((batch,), 0.02, device=DEVICE)
    denoise = load_kernel_denoiser(device=DEVICE).denoise
    z = torch.randn(batch, 4, size // 8, size // 8, device=DEVICE)
    delta = delta_kernel(kernel_size).to(DEVICE).repeat(batch, 1, 1, 1)
    wide = gaussian_kernel(kernel_size, 0.3 * kernel_size).to(DEVICE).repeat(batch, 1, 1, 1)

    rows: list[dict[str, Any]] = []

    def add(name: str, full: int, plain: int, each: float, each_plain: float = 0.0) -> None:
        total = (full * each + plain * each_plain) / batch
        rows.append({"run": name, "full steps": full, "plain steps": plain, "s per full step": each})
        rows[-1] |= {"s per plain step": each_plain, "s per image": total}

    public = PublicSteps(vae, unet, text, denoise, y, HALF)
    for name, (step, count) in public_runs(public).items():
        add(name, count, 0, seconds(lambda: step(z, delta)))  # noqa: B023  is called before the next pass

    prior = DiffusersPrior(vae.to(HALF), unet.to(HALF), schedule, Condition(text))
    ext.accelerate_vae(vae)

    def run(e_step: EStep, hqs: HQS, kernel: Tensor, steps: int) -> None:
        generator = torch.Generator(DEVICE).manual_seed(0)
        solver = LatentDEM(prior, Blur(kernel_size, denoise, hqs), e_step)
        solver(y, kernel, sigma, generator=generator, steps=steps)

    def plain_step() -> None:
        with torch.no_grad():
            ext.dps_step(z, prior.predict_noise(z, 500), sigma, 2 * sigma)

    full = seconds(lambda: run(Posterior(), HQS(), delta, MEASURED), 1) / MEASURED
    plain = seconds(plain_step)
    for name, skip in (
        ("posterior, none skipped", EVERY_STEP),
        ("posterior, S_T = 500, K = 8", Skip()),
        ("posterior, S_T = 0, K = 16", Skip(0, 16)),
    ):
        count = full_steps((Pass(1000),), skip)
        add(name, count, 1000 - count, full, plain)
    steps = 10 * MEASURED
    proximal = seconds(lambda: run(Proximal(), HQS(5, 1e6, centre=True), wide, steps), 1) / steps
    add("proximal, 50 steps", 50, 0, proximal)

    for row in rows:
        row["release / this"] = rows[0]["s per image"] / row["s per image"]
        row |= {"image": size, "kernel": kernel_size, "narrow": narrow, "batch": batch}
        row["device"] = device_name()
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every row, write csv and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="of the square image, in pixels")
    parser.add_argument("--kernel-size", type=int, default=64)
    parser.add_argument("--narrow", type=int, default=4, help="divides all widths")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images restored together")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--prior", choices=["random", "embedded"], default="random")
    parser.add_argument(
        "--photograph", type=Path, action="append", default=[], help="blurred, with --prior embedded"
    )
    parser.add_argument("--before", help="Python of an earlier release, for a row, with --prior embedded")
    options = parser.parse_args(arguments)
    if options.prior == "embedded":
        return photographs.main(options.photograph, options.out, before=options.before)
    rows = [
        row
        for batch in options.batch
        for row in measured(batch, options.size, options.kernel_size, options.narrow)
    ]
    folder = options.out / slug(device_name())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "whole_run.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
