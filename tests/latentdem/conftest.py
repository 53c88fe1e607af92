"""Fixtures shared by the tests around the solver: a small picture and a stand-in for the restoration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import latentdem
from latentdem.cli import app
from latentdem.io.images import write_image
from latentdem.operators.kernels import delta_kernel
from latentdem.output.result import Result
from latentdem.priors import EmbeddedPrior
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.unet import UNet
from latentdem.solver.state import TraceStep


@pytest.fixture
def scene() -> Callable[..., Tensor]:
    """Makes (1, C, H, W) pictures in [-1, 1] with edges at all scales."""

    def make(height: int = 40, width: int = 48, channels: int = 3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randn(1, channels, height, width, generator=generator)
        smooth = torch.nn.functional.avg_pool2d(steps, 5, stride=1, padding=2, count_include_pad=False)
        return (3 * smooth).clamp(-1, 1)

    return make


class Cli:
    """The command line, run inside the process."""

    @staticmethod
    def run(*args: object, status: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    @classmethod
    def sentence(cls, *args: object, status: int = 1) -> str:
        """The one line on stderr of a command that fails."""
        lines = cls.run(*args, status=status).stderr.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    @staticmethod
    def names(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cli() -> type[Cli]:
    return Cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Callable[..., Tensor]) -> Path:
    """An empty current folder, with photo.png in the folder above."""
    current = tmp_path / "here"
    current.mkdir()
    monkeypatch.chdir(current)
    write_image(tmp_path / "photo.png", scene())
    return current


class FakeDeblur:
    """Stands in for `latentdem.deblur`: returns `image` or its input, and a delta; remembers its arguments."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fail_at: int | None = None
        self.error: BaseException = KeyboardInterrupt()
        self.image: Tensor | None = None

    def __call__(self, image: Tensor, kernel_size: int | None = None, **options: Any) -> Result:
        if len(self.calls) == self.fail_at:
            raise self.error
        self.calls.append({"image": image, "kernel_size": kernel_size, **options})
        kernel = options.get("kernel")
        if kernel is None:
            kernel = delta_kernel(kernel_size or 9).repeat(len(image), 1, 1, 1)
        for done in range(3):
            options["progress"]("stage", done + 1, 3)
        residuals = np.geomspace(0.3, 0.02, 12)
        trace = [
            TraceStep("stage", 900 - 80 * i, torch.full((len(image),), r), kernel)
            for i, r in enumerate(residuals)
        ]
        sigma = torch.full((len(image),), options.get("noise_sigma") or 0.01)
        settings = {"kernel_size": kernel_size, "seed": options["seed"], "device": "cpu"}
        settings["kernel_known"] = options.get("kernel") is not None
        sampled = options.get("num_samples", 1) > 1
        return Result(
            image.clone() if self.image is None else self.image,
            kernel,
            image,
            sigma,
            torch.full((len(image),), 0.02),
            trace,
            {"search": 1.5, "total": 2.0},
            settings,
            uncertainty=torch.full((len(image), 1, *image.shape[-2:]), 0.125) if sampled else None,
            kernel_uncertainty=0.1 * kernel if sampled and options.get("kernel") is None else None,
            kernel_field=kernel.repeat(1, 25, 1, 1) if options.get("blur") == "varying" else None,
        )


@pytest.fixture
def fake_deblur(monkeypatch: pytest.MonkeyPatch) -> FakeDeblur:
    """Replaces `latentdem.deblur` by one that takes no time."""
    fake = FakeDeblur()
    monkeypatch.setattr(latentdem, "deblur", fake, raising=False)
    return fake


class OraclePrior:
    """A prior that knows the image: latents are its pixels, rearranged; noise is what is not the image."""

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 12, height // 2, width // 2

    def encode(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(x, 2)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        return torch.nn.functional.pixel_shuffle(z, 2)

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        a = self.alphas_cumprod[t]
        clean = self.encode(self.target).repeat_interleave(len(z_t) // len(self.target), 0)
        return (z_t - a.sqrt() * clean) / (1 - a).sqrt()


@pytest.fixture
def oracle() -> type[OraclePrior]:
    return OraclePrior


@pytest.fixture
def lossy(oracle: type[OraclePrior]) -> Callable[[Tensor], Any]:
    """A prior that knows the image, and whose autoencoder keeps only half of what is not the image."""

    def make(x: Tensor) -> Any:
        prior = oracle(x)
        whole = prior.encode
        prior.encode = lambda other: whole((other + x) / 2)
        return prior

    return make


@pytest.fixture(scope="session")
def tiny_prior() -> EmbeddedPrior:
    """The architecture of the embedded prior with a few thousand random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(8, 8, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4)
        autoencoder = EmbeddedAutoencoder(widths=(8, 16))
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    return EmbeddedPrior(autoencoder, unet, abar)
