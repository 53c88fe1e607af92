"""Every operator, known and unknown, on photographs: table and gallery.

    python -m benchmarks.operators PHOTOS [--limit 4] [--size 128] [--only NAME ...] [--out docs]

Writes results/operators.csv and figures/operators.png (the first photograph) under --out, and prints the table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem import restore
from latentdem.io.images import read_image
from latentdem.metrics import image_metrics, kernel_metrics, psnr
from latentdem.operators import (
    CameraResponse,
    DiskKernels,
    Gamma,
    GaussianKernels,
    PhaseRetrieval,
    RoundGaussianKernels,
    VaryingBlur,
)
from latentdem.operators.kernels import motion_kernel
from latentdem.output.sheets import Panel, panels
from latentdem.priors import load_prior

NOISE = 0.02


@dataclass
class Case:
    """A measurement without noise, its operator and the hidden parameters.

    `operator` is a name with settings, `known` its true parameters; `error` measures estimated ones.
    """

    name: str
    y: Tensor
    operator: object
    known: dict[str, object] | None
    error: Callable[[dict[str, Tensor]], str]
    noise: float = NOISE


def relative(**truth: float) -> Callable[[dict[str, Tensor]], str]:
    """Error of numbers in per cent."""

    def error(estimates: dict[str, Tensor]) -> str:
        return ", ".join(
            f"{name} {100 * abs(float(estimates[name]) / value - 1):.0f} %" for name, value in truth.items()
        )

    return error


def mnc(name: str, truth: Tensor) -> Callable[[dict[str, Tensor]], str]:
    """Mean normalised correlation of kernels (..., K, K)."""

    def error(estimates: dict[str, Tensor]) -> str:
        size = truth.shape[-1]
        pairs = zip(
            estimates[name].reshape(-1, 1, 1, size, size), truth.reshape(-1, 1, 1, size, size), strict=True
        )
        return f"MNC {mean(kernel_metrics(a, b).mnc for a, b in pairs):.2f}"

    return error


def overlap(truth: Tensor) -> Callable[[dict[str, Tensor]], str]:
    """Intersection over union of the hidden pixels."""

    def error(estimates: dict[str, Tensor]) -> str:
        a, b = estimates["mask"][0] < 0.5, truth < 0.5
        return f"IoU {float((a & b).sum() / (a | b).sum()):.2f}"

    return error


def strokes(height: int, width: int, generator: np.random.Generator) -> Tensor:
    """(1, H, W), 0 on five random lines of three pixels, else 1."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mask = torch.ones(1, height, width)
    for _ in range(5):
        angle, offset = generator.uniform(0, np.pi), generator.uniform(-0.4, 0.4)
        distance = (rows - height / 2) * np.cos(angle) + (columns - width / 2) * np.sin(angle)
        mask[0][(distance - offset * height).abs() < 1.5] = 0
    return mask


def cases(x: Tensor, seed: int) -> list[Case]:
    """All cases for the sharp image `x` (1, 3, H, W)."""
    generator = np.random.default_rng(seed)
    height, width = x.shape[-2:]
    gaussian = GaussianKernels().kernel(torch.tensor([[2.5, 1.2]]), 25)
    disk = DiskKernels().kernel(torch.tensor([[3.5]]), 25)
    round_ = RoundGaussianKernels()
    motion = motion_kernel(25, 0.5, generator)
    all_cases = [
        Case(
            "gaussian",
            ext.blur(x, gaussian),
            "gaussian",
            {"sigma_x": 2.5, "sigma_y": 1.2},
            relative(sigma_x=2.5, sigma_y=1.2),
        ),
        Case("disk", ext.blur(x, disk), "disk", {"radius": 3.5}, relative(radius=3.5)),
        Case("blur", ext.blur(x, motion), "blur:size=25", {"kernel": motion}, mnc("kernel", motion)),
    ]
    clipped = 1.5 * (ext.blur(x, motion) + 1) - 1  # white and beyond become white
    operator = "saturation:size=25,exposure=1.5"
    all_cases.append(Case("saturation", clipped, operator, {"kernel": motion}, mnc("kernel", motion)))
    for factor in (2, 4, 8):
        sigma, first = 0.5 * factor, (factor - 1) // 2
        small = ext.blur(x, round_.kernel(torch.tensor([[sigma]]), 6 * factor))[
            ..., first::factor, first::factor
        ]
        all_cases.append(
            Case(
                f"superresolution x{factor}",
                small,
                f"superresolution:factor={factor}",
                {"sigma": sigma},
                relative(sigma=sigma),
            )
        )
    all_cases.append(Case("denoise", x, "denoise", {"sigma": 0.2}, relative(sigma=0.2), noise=0.2))
    lines = strokes(height, width, generator)
    hidden = lines * x - (1 - lines)
    all_cases.append(Case("inpaint strokes", hidden, "inpaint", {"mask": lines}, overlap(lines)))
    box = torch.ones(1, height, width)
    box[:, height // 3 : height // 3 + height // 5, width // 4 : width // 4 + width // 4] = 0
    hidden = box * x - (1 - box)
    all_cases.append(Case("inpaint rectangle", hidden, "inpaint:shape=rectangle", {"mask": box}, overlap(box)))
    kernels = GaussianKernels().kernel(torch.tensor([[2.5, 0.6], [0.6, 2.5], [1.0, 1.0], [1.8, 1.8]]), 13)[:, 0]
    varying = VaryingBlur(13, height, width)
    y = varying.apply(x, kernels=kernels[None])
    all_cases.append(Case("varying", y, "varying:size=13", {"kernels": kernels}, mnc("kernels", kernels)))
    y = Gamma().apply(x, gamma=torch.tensor([2.0]))
    all_cases.append(Case("gamma", y, "gamma", {"gamma": 2.0}, relative(gamma=2.0)))
    y = CameraResponse().apply(x, sigma=torch.tensor([2.0]), gamma=torch.tensor([2.5]))
    known = {"sigma": 2.0, "gamma": 2.5}
    all_cases.append(Case("response", y, "response", dict(known), relative(**known)))
    y = PhaseRetrieval().apply(x)
    all_cases.append(Case("phase retrieval", y, PhaseRetrieval(), None, lambda _: "", noise=0.01))
    return all_cases


def noisy(case: Case, seed: int) -> Tensor:
    """The measurement with noise; clipped and hidden values stay in the range."""
    generator = torch.Generator().manual_seed(seed)
    y = case.y + case.noise * torch.randn(case.y.shape, generator=generator)
    return y.clamp(-1, 1) if case.name == "saturation" else y


def enlarged(y: Tensor, x: Tensor) -> Tensor | None:
    """The measurement as an image like `x`; None where it is none."""
    if y.shape == x.shape:
        return y
    return F.interpolate(y, x.shape[-2:], mode="bicubic") if y.shape[-1] < x.shape[-1] else None


def quality(image: Tensor, x: Tensor, name: str) -> float:
    """PSNR; of blind blur after the best shift, of phase retrieval turned if that is better."""
    if name == "phase retrieval":
        return max(psnr(image, x), psnr(image.flip(-1, -2), x))
    if name in ("blur", "saturation", "varying"):
        return image_metrics(image, x).psnr_aligned
    return psnr(image, x)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    prior = load_prior("embedded", torch.device("cpu"))
    rows: list[dict[str, object]] = []
    gallery: list[list[Panel]] = []
    for number, path in enumerate(sorted(options.photos.glob("*.png"))[: options.limit]):
        sharp = read_image(path).pixels
        x = F.interpolate(sharp, (options.size,) * 2, mode="bicubic", antialias=True).clamp(-1, 1)
        for case in cases(x, number):
            if options.only and case.name not in options.only:
                continue
            y, shown = noisy(case, number), None
            row: dict[str, object] = {"photo": path.stem, "operator": case.name}
            shown = enlarged(y, x)
            row["input"] = None if shown is None else quality(shown, x, case.name)
            given = {"noise_sigma": case.noise, "prior": prior, "boundary": "circular", "steps": options.steps}
            pictures = [Panel(x if shown is None else shown, f"{case.name}: input")]
            for kind in ("known", "blind"):
                row[kind], row[f"{kind} seconds"] = None, None
                if kind == "blind" and case.known is None:
                    continue
                known = case.known if kind == "known" else None
                if case.name == "denoise" and kind == "blind":
                    given["noise_sigma"] = None
                result = restore(y, case.operator, known, **given)
                row[kind] = quality(result.image, x, case.name)
                row[f"{kind} seconds"] = result.seconds["total"]
                pictures.append(Panel(result.image, f"{kind}, {row[kind]:.1f} dB"))
                if kind == "blind":
                    row["error"] = case.error(result.parameters)
            pictures.append(Panel(x, "sharp"))
            rows.append(row)
            if number == 0:
                gallery.append(pictures)
            print(row, flush=True)
    for folder in ("results", "figures"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    with (options.out / "results" / "operators.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["photo", "operator", "input", "known", "blind", "error", "known seconds", "blind seconds"]
        )
        writer.writeheader()
        writer.writerows(rows)
    panels(gallery, options.out / "figures" / "operators.png")
    for name in dict.fromkeys(row["operator"] for row in rows):
        own = [row for row in rows if row["operator"] == name]
        cells = []
        for column in ("input", "known", "blind"):
            values = [float(row[column]) for row in own if row[column] is not None]
            cells.append(f"{mean(values):.2f}" if values else "-")
        print(f"| {name} | {' | '.join(cells)} | {'; '.join(str(row.get('error', '-')) for row in own)} |")


if __name__ == "__main__":
    main()
