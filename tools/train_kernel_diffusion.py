"""Trains the diffusion prior of blur kernels that `latentdem evaluate --methods blinddps` uses.

    python tools/train_kernel_denoiser.py kernels --out runs/kernels
    python tools/train_kernel_diffusion.py train --kernels runs/kernels/kernels.npz --out runs/kernel_diffusion
    python tools/train_kernel_diffusion.py export --out runs/kernel_diffusion
    python tools/train_kernel_diffusion.py evaluate --out runs/kernel_diffusion

The training set is that of the kernel denoiser; `train` resumes from its last checkpoint when started again.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from _training import Trainer
from torch import Tensor
from tqdm import tqdm

import latentdem_ext as ext
from latentdem.operators.kernels import motion_kernels
from latentdem.priors.base import LatentPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.priors.kernel_diffusion import (
    SCHEDULE,
    SHIPPED,
    DenoiserPrior,
    KernelDiffusion,
    kernel_of,
    kernel_picture,
)
from latentdem.priors.loading import SCHEDULE as SCHEDULE_FILE
from latentdem.priors.loading import load_network
from latentdem.priors.parametrization import TIMESTEPS, Parametrization
from latentdem.priors.unet import UNet
from latentdem.solver.draws import cumulative_alpha
from latentdem.solver.schedules import timesteps

WIDTHS = (16, 16, 24)
TESTED = (20, 100, 200, 400, 600, 800)  # timesteps

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, curves and pictures.")]
Weights = Annotated[Path, typer.Option(help="Folder of the exported weights.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def network() -> UNet:
    """The network before training."""
    return UNet(1, 1, WIDTHS, layers_per_block=1, norm_num_groups=8)


@app.command()
def train(
    kernels: Annotated[Path, typer.Option(help="kernels.npz, drawn by train_kernel_denoiser.py.")],
    out: Out = Path("runs/kernel_diffusion"),
    steps: Annotated[int, typer.Option(help="Optimiser steps in total, over all resumed runs.")] = 2500,
    pixels: Annotated[int, typer.Option(help="Pixels a batch; it holds kernels of one size.")] = 8192,
    learning_rate: float = 2e-3,
    minutes: Annotated[float | None, typer.Option(help="Time limit.")] = None,
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
) -> None:
    """Trains to predict v at uniform timesteps (Salimans and Ho 2022, App. D), in float32."""
    if threads:
        torch.set_num_threads(threads)
    torch_device = torch.device(device)
    with np.load(kernels) as file:
        groups = [torch.from_numpy(file[name]) for name in file.files]
    model = network()
    prior = KernelDiffusion(model, Parametrization.from_config(SCHEDULE))
    model.train().requires_grad_(True).to(torch_device)
    trainer = Trainer(model, out / "run", steps=steps, learning_rate=learning_rate, minutes=minutes)
    torch.manual_seed(trainer.step)
    alphas = prior.alphas_cumprod.to(torch_device)

    def loss_fn(step: int) -> dict[str, Tensor]:
        group = groups[int(torch.randint(len(groups), ()))]
        batch = max(1, pixels // group[0].numel())
        kernel = group[torch.randint(len(group), (batch,))].unsqueeze(1)
        kernel = kernel.rot90(int(torch.randint(4, ())), (2, 3)).to(torch_device).float()
        clean = prior.encode(kernel_picture(kernel))
        t = torch.randint(TIMESTEPS, (batch,), device=torch_device)
        abar, noise = alphas[t].view(-1, 1, 1, 1), torch.randn_like(clean)
        signal, level = abar.sqrt(), (1 - abar).sqrt()
        noisy, v = signal * clean + level * noise, signal * noise - level * clean
        with torch.autocast(torch_device.type, enabled=False):  # no faster for so small a network
            return {"loss": (model(noisy, t) - v).square().mean()}

    trainer.run(loss_fn, torch_device)
    trainer.ema.module.eval().save_pretrained(out / "model")


@app.command()
def export(out: Out = Path("runs/kernel_diffusion"), weights: Weights = SHIPPED) -> None:
    """Writes the exponential moving average as float16 safetensors, and the schedule."""
    model = network()
    model.load_state_dict(load_network(UNet, out / "model").state_dict())
    model.half().save_pretrained(weights / "unet")
    file = weights / "scheduler" / SCHEDULE_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(SCHEDULE, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"Wrote {sum(p.numel() for p in model.parameters())} parameters to {weights}.")


@app.command()
def evaluate(
    out: Out = Path("runs/kernel_diffusion"),
    weights: Weights = SHIPPED,
    count: Annotated[int, typer.Option(help="Held-out kernels per size.")] = 64,
    sizes: Annotated[list[int], typer.Option(help="Kernel sizes.")] = [17, 33, 64],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Steps of a sample.")] = 100,
) -> None:
    """Errors of the noise predicted in held-out motion kernels, beside those of the kernel denoiser.

    Writes evaluation.csv (mean squared errors; the noise has 1) and samples.png: samples above, motion kernels
    below, for each size.
    """
    priors: dict[str, LatentPrior] = {
        "diffusion": KernelDiffusion.from_pretrained(weights),
        "denoiser": DenoiserPrior(load_kernel_denoiser()),
    }
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rows, pictures = [], []
    for size in tqdm(sizes, desc="sizes"):
        clean = motion_kernels(count, size, 0.5, seed=10**6)
        for t in TESTED:
            errors = [noise_error(prior, kernel_picture(clean), t) for prior in priors.values()]
            rows.append([size, t, *(f"{error:.5f}" for error in errors)])
        pictures.append((size, kernel_of(sample(priors["diffusion"], 8, size, steps)), clean[:8]))
    with (out / "evaluation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["size", "t", *priors], *rows])
    typer.echo("\n".join("  ".join(f"{value:>9}" for value in row) for row in rows))
    save_pictures(pictures, out / "samples.png")


def noise_error(prior: LatentPrior, picture: Tensor, t: int) -> float:
    """Mean square of the error of the predicted noise at timestep `t`."""
    clean, abar = prior.encode(picture), float(prior.alphas_cumprod[t])
    noise = torch.randn_like(clean)
    predicted = prior.predict_noise(abar**0.5 * clean + (1 - abar) ** 0.5 * noise, t)
    return float((predicted - noise).square().mean())


def sample(prior: LatentPrior, count: int, size: int, steps: int) -> Tensor:
    """Unconditional pictures of kernels (count, 1, size, size) by ancestral sampling."""
    z = torch.randn(count, *prior.latent_shape(size, size))
    for t, t_next in timesteps(steps):
        now, after = (cumulative_alpha(prior, s, count, z) for s in (t, t_next))
        z = ext.dps_step(z, prior.predict_noise(z, t), now, after, eta=1.0, noise=torch.randn_like(z))[0]
    return prior.decode(z, size, size)


def save_pictures(pictures: list[tuple[int, Tensor, Tensor]], path: Path) -> None:
    """One panel per size: samples above, motion kernels below, each scaled to its peak."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(6 * len(pictures), 2), layout="constrained")
    for axis, (size, *groups) in zip(np.atleast_1d(axes), pictures, strict=True):
        scaled = [group / group.amax((1, 2, 3), keepdim=True) for group in groups]
        axis.imshow(np.block([list(group[:, 0].numpy()) for group in scaled]), cmap="gray")
        axis.set(title=f"K = {size}: samples, motion kernels", xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    app()
