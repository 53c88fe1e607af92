"""Trains the network that corrects estimated blur kernels, on the errors of this package's own estimates.

    python tools/train_kernel_refiner.py estimates PHOTOS --out runs/kernel_refiner
    python tools/train_kernel_refiner.py train --out runs/kernel_refiner
    python tools/train_kernel_refiner.py export --out runs/kernel_refiner
    python tools/train_kernel_refiner.py evaluate --out runs/kernel_refiner

`estimates` blurs photographs and estimates their kernels again, about one photograph a second on one core; it
and `train` continue where they stopped.
"""

from __future__ import annotations

import io
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from _camera_kernels import camera_kernel
from _data import SUFFIXES
from _kernel_losses import decibels_lost, shifted_to
from _training import Trainer
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import motion_kernel
from latentdem.priors.kernel_refiner import SHIPPED, KernelRefiner, load_kernel_refiner
from latentdem.search.gradient_chain import SETTINGS, alternate, widths_to
from latentdem.search.gradient_input import GradientInput
from latentdem.search.gradient_scale import resize
from latentdem.search.gradient_score import full_scale
from latentdem.search.gradient_start import refined_at_full_size
from latentdem_ext import project_kernel

SIZES = (15, 17, 19, 21, 23, 27, 33, 41, 45)  # K of the true kernels
SIDE = 256  # pixels of the blurred photographs
HYPOTHESES = 3  # estimates of a photograph at each of two stages
PART = 50  # photographs in a file
HELD_OUT = 20  # every such file is for the evaluation
SIMILAR = 0.6  # normalised correlation with the true kernel below which an estimate is another minimum

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder for the estimates, checkpoints and curves.")]
Weights = Annotated[Path, typer.Option(help="Folder of the exported weights.")]


def blurred_photograph(path: Path, generator: np.random.Generator) -> tuple[Tensor, Tensor, float] | None:
    """A grey photograph in [-1, 1] of at most 256 x 256, its kernel and noise level; None if it is too small.

    The noise of 0.002 to 0.06 is log-uniform, and in a third of the cases a JPEG file follows.
    """
    pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 127.5 - 1
    size = int(generator.choice(SIZES))
    side = SIDE + size - 1
    if min(pixels.shape) < SIDE:
        return None
    if generator.uniform() < 0.65:
        kernel = torch.from_numpy(camera_kernel(size, generator))[None, None]
    else:
        kernel = motion_kernel(size, float(generator.choice([0.3, 0.5, 0.7])), generator)
    top, left = (int(generator.integers(0, max(1, n - side + 1))) for n in pixels.shape)
    sharp = torch.from_numpy(pixels[top : top + side, left : left + side])[None, None]
    y = F.conv2d(sharp, kernel.flip(-2, -1))
    sigma = 2 * float(10 ** generator.uniform(-3, -1.5))
    y = y + sigma * torch.from_numpy(generator.standard_normal(tuple(y.shape)).astype(np.float32))
    if generator.uniform() < 1 / 3:
        file, values = io.BytesIO(), ((y[0, 0] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        Image.fromarray(values).save(file, "JPEG", quality=int(generator.integers(75, 97)))
        y = torch.from_numpy(np.asarray(Image.open(file), dtype=np.float32) / 127.5 - 1)[None, None]
    return y, kernel, sigma


def estimated_kernels(
    y: Tensor, kernel: Tensor, sigma: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Estimates (6, 1, K', K') of a kernel, and that kernel in their frame.

    The alternation starts from the true kernel at a coarse scale, or most would end in other minima, which no
    correction helps.
    """
    size = kernel.shape[-1]
    framed = size if generator.uniform() < 0.5 else int(1.4 * size) | 1
    truth = F.pad(kernel, [(framed - size) // 2] * 4)
    widths, last = widths_to(framed), int(generator.choice([2, 3, 4], p=[0.4, 0.4, 0.2]))
    first = project_kernel(resize(truth, (widths[-last - 1],) * 2)).repeat(HYPOTHESES, 1, 1, 1)
    settings = [SETTINGS[n] for n in generator.choice(len(SETTINGS), HYPOTHESES, replace=False)]
    inputs = GradientInput.of(y, framed, None, False, HYPOTHESES)
    coarse = alternate(inputs, settings, first, widths[-last:], sigma / 2)
    rounds = int(generator.integers(1, 4))
    fine = refined_at_full_size(full_scale(inputs), coarse, sigma / 2, rounds)
    return torch.cat([coarse, fine]), truth


def draw_part(part: int, paths: list[Path], folder: Path) -> None:
    """Writes the file of one part: lists of estimates, true kernels and noise levels by kernel size."""
    torch.set_num_threads(1)
    groups: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    generator, missing = np.random.default_rng(part), PART
    while missing:
        drawn = blurred_photograph(paths[generator.integers(len(paths))], generator)
        if drawn is None:
            continue
        with torch.no_grad():
            estimates, truth = estimated_kernels(*drawn, generator)
        missing -= 1
        entry = (estimates.half(), truth.half(), torch.tensor([drawn[2]]))
        name = str(truth.shape[-1])
        groups[name] = tuple(map(torch.cat, zip(groups[name], entry, strict=True))) if name in groups else entry
    torch.save(groups, folder / f"part_{part:04d}.pt")


@app.command()
def estimates(
    photos: Annotated[Path, typer.Argument(help="Folder of sharp photographs, at least 256 pixels a side.")],
    out: Out = Path("runs/kernel_refiner"),
    count: Annotated[int, typer.Option(help="Blurred photographs.")] = 3300,
    workers: Annotated[int, typer.Option(help="Processes.")] = multiprocessing.cpu_count(),
) -> None:
    """Blurs photographs and estimates their kernels, six times each."""
    folder = out / "estimates"
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"No photographs found below {photos}: give a folder of JPEG or PNG files.")
    missing = [n for n in range(-(-count // PART)) if not (folder / f"part_{n:04d}.pt").exists()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        draw = partial(draw_part, paths=paths, folder=folder)
        for _ in tqdm(pool.imap_unordered(draw, missing), total=len(missing), desc="parts of 50 photographs"):
            pass


def load_estimates(folder: Path, held_out: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Estimates, true kernels at their shift and noise levels (N,), one entry for each kernel size."""
    groups: dict[str, list[tuple[Tensor, ...]]] = {}
    paths = sorted((folder / "estimates").glob("part_*.pt"))
    for n, path in enumerate(tqdm(paths, desc="reading", leave=False)):
        if (n % HELD_OUT == 0) != held_out:
            continue
        for name, (estimated, true, sigma) in torch.load(path, weights_only=True).items():
            each, estimate = len(estimated) // len(true), estimated.float()
            truth = shifted_to(true.float().repeat_interleave(each, 0), estimate)
            kept = F.cosine_similarity(estimate.flatten(1), truth.flatten(1)) > SIMILAR
            entry = estimate[kept], truth[kept], sigma.repeat_interleave(each)[kept]
            groups.setdefault(name, []).append(entry)
    if not groups:
        raise SystemExit(f"There are no estimates in {folder}; run the command 'estimates' first.")
    return [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in groups.values()]


@app.command()
def train(
    out: Out = Path("runs/kernel_refiner"),
    steps: Annotated[int, typer.Option(help="Optimiser steps in total, over all resumed runs.")] = 2500,
    pixels: Annotated[int, typer.Option(help="Pixels a batch; it holds kernels of one size.")] = 65536,
    learning_rate: float = 1.5e-3,
    minutes: Annotated[float | None, typer.Option(help="Time limit.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    init: Annotated[Path | None, typer.Option(help="Exported weights to start from.")] = None,
) -> None:
    """Minimises the decibels that a Wiener filter loses by the kernel, at most 6, and its relative error."""
    if threads:
        torch.set_num_threads(threads)
    groups = load_estimates(out, held_out=False)
    model = KernelRefiner()
    if init is not None:
        model.load_state_dict(load_kernel_refiner(init).state_dict())
    model = model.to(torch.device(device))
    trainer = Trainer(model, out / "run", steps=steps, learning_rate=learning_rate, minutes=minutes)
    generator = np.random.default_rng(trainer.step)
    shares = np.array([len(truth) for _, truth, _ in groups], dtype=float) / sum(len(one[0]) for one in groups)

    def loss_fn(step: int) -> dict[str, Tensor]:
        estimate, truth, sigma = groups[int(generator.choice(len(groups), p=shares))]
        rows = torch.from_numpy(generator.integers(len(truth), size=max(16, pixels // truth[0].numel())))
        estimate, truth, sigma = (one[rows].to(device) for one in (estimate, truth, sigma))
        turns, mirrored = int(generator.integers(4)), generator.uniform() < 0.5
        estimate, truth = (one.rot90(turns, (2, 3)) for one in (estimate, truth))
        if mirrored:
            estimate, truth = estimate.flip(3), truth.flip(3)
        peak = estimate.amax((-2, -1), keepdim=True)
        corrected, scaled = model(estimate / peak, sigma).float(), truth / peak
        relative = ((corrected - scaled).square().sum((1, 2, 3)) / scaled.square().sum((1, 2, 3))).mean()
        positive = F.leaky_relu(corrected, 0.01)  # a little slope, or clipped values would stay clipped
        lost = decibels_lost(positive / positive.sum((-2, -1), keepdim=True), truth, sigma).clamp_max(6).mean()
        return {"loss": lost + 2 * relative, "decibels": lost, "relative": relative}

    trainer.run(loss_fn, torch.device(device))
    trainer.ema.module.eval().save_pretrained(out / "model")


@app.command()
def export(out: Out = Path("runs/kernel_refiner"), weights: Weights = SHIPPED) -> None:
    """Writes the exponential moving average as float16 safetensors, in the layout that ships."""
    model = load_kernel_refiner(out / "model")
    model.half().save_pretrained(weights)
    typer.echo(f"Wrote {sum(p.numel() for p in model.parameters())} parameters to {weights}.")


@app.command()
def evaluate(out: Out = Path("runs/kernel_refiner"), weights: Weights = SHIPPED) -> None:
    """What held-out estimates cost a picture before and after the correction, and their MNC, by noise."""
    model = load_kernel_refiner(weights)
    rows: dict[str, list[list[float]]] = {}
    for estimate, truth, sigma in tqdm(load_estimates(out, held_out=True), desc="sizes"):
        refined = model.refined(estimate, sigma)
        lost = [decibels_lost(one, truth, sigma) for one in (estimate, refined)]
        for n in range(len(truth)):
            mnc = [kernel_metrics(one[n], truth[n]).mnc for one in (estimate, refined)]
            name = "below 0.01" if sigma[n] < 0.01 else "0.01 and above"
            rows.setdefault(name, []).append([float(lost[0][n]), float(lost[1][n]), *mnc])
    typer.echo("noise           estimates   dB lost before, after (median)      MNC before, after   improved")
    for name, values in sorted(rows.items()):
        table = np.array(values)
        mean, median = table.mean(0), np.median(table, 0)
        typer.echo(
            f"{name:14} {len(table):10}   {mean[0]:.3f} {mean[1]:.3f} ({median[0]:.3f} {median[1]:.3f})"
            f"             {mean[2]:.3f} {mean[3]:.3f}          {np.mean(table[:, 1] < table[:, 0]):.0%}"
        )


if __name__ == "__main__":
    app()
