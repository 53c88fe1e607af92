"""Time of whole runs with networks of the shape of Stable Diffusion 1.5 and random weights.

    python -m benchmarks.whole_run [--size 256] [--narrow 4] [--batch 1] [--out benchmarks/results]

The rows are the order of operations of the authors' release, under autocast, and in half precision the paper's
settings with this package and the proximal E-step with 50 steps. Time does not depend on the weights. All full
steps of a run cost the same, and so do the plain ones: where a run has hundreds, some are measured and the run
is their sum. `--narrow 4` divides all widths by 4, for a processor. With `--prior embedded` photographs are
restored as a user restores them (`benchmarks.photographs`).
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
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from scipy import ndimage
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
from .baselines import public_m_step
from .conftest import device_name
from .report import slug
from .rows import DEVICE

MEASURED = 5  # steps of each kind
GUIDANCE = 7.5
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


def released_step(
    vae: Any, unet: Any, text: Tensor, denoise: Any, z: Tensor, y: Tensor, kernel: Tensor
) -> Tensor:
    """One step in the order of the authors' release: idle guidance, gradient, M-step, centring on the CPU."""
    size = kernel.shape[-1]
    with torch.autocast(DEVICE.type, HALF), torch.enable_grad():
        z = z.detach().requires_grad_()
        both = unet(torch.cat([z, z]), 500, torch.cat([text, text]).repeat_interleave(len(z), 0)).sample
        negative, positive = both.chunk(2)
        eps = negative + GUIDANCE * (positive - negative)
        z0 = (z - 0.7 * eps) / 0.7
        x0 = vae.decode(z0).sample
        padded = F.pad(kernel, (0, y.shape[-1] - size, 0, y.shape[-2] - size))
        otf = torch.fft.fft2(padded.roll((-(size // 2),) * 2, (-2, -1)))
        residual = y - torch.fft.ifft2(torch.fft.fft2(x0.float()) * otf).real
        glued = vae.encode(x0 + residual).latent_dist.mode()
        loss = residual.norm() + 0.1 * (glued - z0).norm()
        (gradient,) = torch.autograd.grad(loss, z)
    with torch.no_grad():
        weight = torch.full((len(y),), 5e6 * 0.02**2, device=y.device)
        for _ in range(20):
            kernel = denoise(public_m_step(x0.float(), y, kernel, weight, 1), 0.05)
        moved = [ndimage.shift(k, (0.3, -0.3)) for k in kernel[:, 0].cpu().numpy()]
        torch.as_tensor(moved[0]).to(y.device)
        return 0.7 * z0 + 0.7 * eps - 0.5 * gradient


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every row, write csv and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="of the square image, in pixels")
    parser.add_argument("--kernel-size", type=int, default=64)
    parser.add_argument("--narrow", type=int, default=4, help="divides all widths")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--prior", choices=["random", "embedded"], default="random")
    parser.add_argument(
        "--photograph", type=Path, action="append", default=[], help="blurred, with --prior embedded"
    )
    parser.add_argument("--before", help="Python of an earlier release, for a row, with --prior embedded")
    options = parser.parse_args(arguments)
    if options.prior == "embedded":
        return photographs.main(options.photograph, options.out, before=options.before)
    torch.manual_seed(0)
    batch, size, kernel_size = options.batch, options.size, options.kernel_size
    vae, unet, schedule = networks(options.narrow)
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

    released = seconds(lambda: released_step(vae, unet, text, denoise, z, y, delta))
    add("order of the release", 1000, 0, released)

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
        row |= {"image": size, "kernel": kernel_size, "narrow": options.narrow, "batch": batch}
        row["device"] = device_name()
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    folder = options.out / slug(device_name())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "whole_run.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
