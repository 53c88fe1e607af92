"""Trains the kernel denoiser of the M-step on random blur kernels.

    python tools/train_kernel_denoiser.py kernels --out runs/kernel_denoiser
    python tools/train_kernel_denoiser.py train --out runs/kernel_denoiser
    python tools/train_kernel_denoiser.py export --out runs/kernel_denoiser
    python tools/train_kernel_denoiser.py evaluate --out runs/kernel_denoiser

`kernels` draws the training set once; `train` resumes from its last checkpoint when started again.
"""

from __future__ import annotations

import csv
import multiprocessing
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

from latentdem.operators.kernels import gaussian_kernel, motion_kernel, motion_kernels
from latentdem.priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser

SHIPPED = Path("python/latentdem/weights/embedded/kernel_denoiser")
SIZES = (17, 21, 25, 29, 32, 33, 37, 41, 45, 48, 49, 53, 57, 61, 64, 65)
LEVELS = (0.003, 0.01, 0.03, 0.05, 0.1, 0.15)  # of the peak; the first and the last bound the training range

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder for the kernels, checkpoints, curves and pictures.")]
Weights = Annotated[Path, typer.Option(help="Folder of the exported weights.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def disk_kernel(size: int, radius: float) -> Tensor:
    """Out-of-focus blur: an antialiased disk (1, 1, K, K) around index K // 2."""
    axis = torch.arange(size) - size // 2
    kernel = (radius + 0.5 - torch.hypot(axis[:, None].float(), axis[None].float())).clamp(0, 1)
    return (kernel / kernel.sum())[None, None]


def random_kernel(size: int, generator: np.random.Generator) -> Tensor:
    """A kernel (1, 1, K, K): mostly motion at intensity 0.5, a third at 0.1 to 0.8, few Gaussians and disks."""
    draw = generator.uniform()
    if draw < 0.03:
        return gaussian_kernel(size, generator.uniform(0.4, 0.3 * size))
    if draw < 0.06:
        return disk_kernel(size, generator.uniform(0.5, 0.4 * size))
    return motion_kernel(size, 0.5 if draw < 0.66 else generator.uniform(0.1, 0.8), generator)


def draw_group(task: tuple[int, int, int]) -> tuple[int, np.ndarray]:
    """(size, kernels (count, K, K) float16 of peak 1) of the task (size, count, seed)."""
    size, count, seed = task
    torch.set_num_threads(1)
    generator = np.random.default_rng((seed, size))
    kernels = torch.cat([random_kernel(size, generator) for _ in range(count)])[:, 0]
    return size, (kernels / kernels.amax(dim=(1, 2), keepdim=True)).half().numpy()


@app.command()
def kernels(
    out: Out = Path("runs/kernel_denoiser"),
    count: Annotated[int, typer.Option(help="Kernels per size.")] = 4096,
    workers: Annotated[int, typer.Option(help="Processes.")] = multiprocessing.cpu_count(),
) -> None:
    """Draws the training set, `count` kernels of each of 16 sizes from 17 to 65, into kernels.npz."""
    part = 64
    tasks = [(size, part, seed) for size in SIZES for seed in range(count // part)]
    groups: dict[int, list[np.ndarray]] = {size: [] for size in SIZES}
    with multiprocessing.Pool(workers) as pool:
        for size, group in tqdm(pool.imap(draw_group, tasks), total=len(tasks), desc="kernels"):
            groups[size].append(group)
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "kernels.npz", **{str(size): np.concatenate(group) for size, group in groups.items()})


def add_noise(clean: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (noisy, clean, level) in units of the peak of the noisy kernel, the only one known in use.

    Args:
        clean: (B, 1, K, K) kernels of peak 1.
        level: (B,) noise standard deviation in units of the clean peak.
    """
    noisy = clean + level.view(-1, 1, 1, 1) * torch.randn_like(clean)
    peak = noisy.amax(dim=(1, 2, 3), keepdim=True)
    return noisy / peak, clean / peak, level / peak.flatten()


@app.command()
def train(
    out: Out = Path("runs/kernel_denoiser"),
    steps: Annotated[int, typer.Option(help="Optimiser steps in total, over all resumed runs.")] = 8000,
    pixels: Annotated[int, typer.Option(help="Pixels a batch; it holds kernels of one size.")] = 32768,
    learning_rate: float = 2e-3,
    minutes: Annotated[float | None, typer.Option(help="Time limit.")] = None,
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
) -> None:
    """Trains with the mean squared error, at noise levels log-uniform over the range.

    The error is weighted with 1 / level, or strong noise would dominate the loss.
    """
    if threads:
        torch.set_num_threads(threads)
    torch_device = torch.device(device)
    with np.load(out / "kernels.npz") as file:
        groups = [torch.from_numpy(file[name]) for name in file.files]
    model = KernelDenoiser().to(torch_device)
    trainer = Trainer(model, out / "run", steps=steps, learning_rate=learning_rate, minutes=minutes)
    torch.manual_seed(trainer.step)
    low, high = np.log(LEVELS[0]), np.log(LEVELS[-1])

    def loss_fn(step: int) -> dict[str, Tensor]:
        group = groups[int(torch.randint(len(groups), ()))]
        batch = max(1, pixels // group[0].numel())
        clean = group[torch.randint(len(group), (batch,))].unsqueeze(1)
        clean = clean.rot90(int(torch.randint(4, ())), (2, 3)).to(torch_device).float()
        level = torch.exp(low + (high - low) * torch.rand(batch, device=torch_device))
        noisy, clean, level = add_noise(clean, level)
        # bfloat16 resolves 0.004 of the peak, less than the weakest noise: the last steps run in float32.
        with torch.autocast(torch_device.type, torch.bfloat16, enabled=step < 0.8 * steps):
            error = model(noisy, level).float() - clean
        return {"loss": (error.square().mean(dim=(1, 2, 3)) / level).mean()}

    trainer.run(loss_fn, torch_device)
    trainer.ema.module.eval().save_pretrained(out / "model")


@app.command()
def export(out: Out = Path("runs/kernel_denoiser"), weights: Weights = SHIPPED) -> None:
    """Writes the exponential moving average as float16 safetensors, in the layout that ships."""
    model = KernelDenoiser()  # the configuration of a loaded model contains the folder it came from
    model.load_state_dict(load_kernel_denoiser(out / "model").state_dict())
    model.half().save_pretrained(weights)
    typer.echo(f"Wrote {sum(p.numel() for p in model.parameters())} parameters to {weights}.")


def linear_filter(noisy: Tensor, level: Tensor, spectrum: Tensor) -> Tensor:
    """The best linear shift-invariant denoiser (Wiener) for kernels of mean power `spectrum` (K, K/2 + 1)."""
    noise = noisy[0].numel() * level.square().mean()
    return torch.fft.irfft2(torch.fft.rfft2(noisy) * (spectrum / (spectrum + noise)), s=noisy.shape[-2:])


@app.command()
def evaluate(
    out: Out = Path("runs/kernel_denoiser"),
    weights: Weights = SHIPPED,
    count: Annotated[int, typer.Option(help="Held-out kernels per size.")] = 64,
    sizes: Annotated[list[int], typer.Option(help="Kernel sizes.")] = [9, 17, 33, 64, 65, 129],  # noqa: B006
) -> None:
    """Compares errors on held-out motion kernels with the noisy kernels' and with the best linear filter's.

    Writes evaluation.csv (root mean squared errors in units of the peak) and denoised.png.
    """
    model = load_kernel_denoiser(weights)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rows, pictures = [], []
    for size in tqdm(sizes, desc="sizes"):
        clean = motion_kernels(count, size, 0.5, seed=10**6)
        clean = clean / clean.amax(dim=(1, 2, 3), keepdim=True)
        for level in LEVELS:
            noisy, scaled, levels = add_noise(clean, torch.full((count,), level))
            spectrum = torch.fft.rfft2(scaled).abs().square().mean(dim=(0, 1))
            denoised = model.denoise(noisy, levels)
            estimates = (noisy, linear_filter(noisy, levels, spectrum), denoised)
            errors = [float((estimate - scaled).square().mean().sqrt()) for estimate in estimates]
            rows.append([size, level, *(f"{error:.5f}" for error in errors)])
            if size in (33, 64) and level in (0.03, 0.1):
                pictures.append((f"K = {size}, level {level}", noisy[:6], denoised[:6], scaled[:6]))
    with (out / "evaluation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["size", "level", "noisy", "linear", "denoiser"], *rows])
    typer.echo("\n".join("  ".join(f"{value:>9}" for value in row) for row in rows))
    save_pictures(pictures, out / "denoised.png")


def save_pictures(pictures: list[tuple[str, Tensor, Tensor, Tensor]], path: Path) -> None:
    """One panel per entry, its rows noisy, denoised and true kernels."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(6 * len(pictures), 3.4), layout="constrained")
    for axis, (title, *groups) in zip(axes, pictures, strict=True):
        axis.imshow(np.block([list(group[:, 0].numpy()) for group in groups]), cmap="gray", vmin=0, vmax=1)
        axis.set(title=f"{title}: noisy, denoised, true", xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    app()
