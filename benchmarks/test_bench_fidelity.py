from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .baselines import autograd_fidelity
from .rows import BACKENDS, DEVICE, NATIVE, implementation

IMAGES = [(1, 256), (1, 512), pytest.param((8, 256), marks=pytest.mark.slow)]


def problem(batch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image (B, 3, H, W), kernel (B, 1, 64, 64), measurement."""
    x, y = torch.rand(2, batch, 3, side, side, device=DEVICE) * 2 - 1
    return x, ext.project_kernel(torch.rand(batch, 1, 64, 64, device=DEVICE)), y


def shape(images: tuple[int, int]) -> str:
    return f"{images[0]} x 3 x {images[1]} x {images[1]}, K = 64"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", IMAGES)
def test_blur(measure, images, backend):
    x, kernel, _ = problem(*images)
    run = implementation("blur", backend)
    expected = reference.blur(x.double(), kernel.double())
    measure("blur", backend, shape(images), lambda: run(x, kernel), expected)


@pytest.mark.parametrize("backend", ["autograd", *BACKENDS])
@pytest.mark.parametrize("images", IMAGES)
def test_blur_fidelity(measure, images, backend):
    x, kernel, y = problem(*images)
    run = autograd_fidelity if backend == "autograd" else implementation("blur_fidelity", backend)
    expected = reference.blur_fidelity(x.double(), kernel.double(), y.double())
    measure("blur_fidelity", backend, shape(images), lambda: tuple(run(x, kernel, y)), expected)


@pytest.mark.parametrize("backend", ["autograd", "reference", NATIVE])
@pytest.mark.parametrize("images", IMAGES)
def test_blur_fidelity_of_a_known_measurement(measure, images, backend):
    """The transform of y is kept from step to step, which autograd has no use for."""
    x, kernel, y = problem(*images)
    y_hat = torch.fft.rfft2(y)

    def run() -> tuple[Tensor, ...]:
        if backend == "autograd":
            return autograd_fidelity(x, kernel, y)
        return tuple(ext.blur_fidelity(x, kernel, y, y_hat=y_hat))

    expected = reference.blur_fidelity(x.double(), kernel.double(), y.double())
    measure("blur_fidelity, y_hat kept", backend, shape(images), run, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", IMAGES)
def test_blur_proximal(measure, images, backend):
    x0, kernel, y = problem(*images)
    rho = torch.full((images[0],), 0.01, device=DEVICE)
    run = implementation("blur_proximal", backend)
    expected = reference.blur_proximal(x0.double(), kernel.double(), y.double(), rho.double())
    measure("blur_proximal", backend, shape(images), lambda: run(x0, kernel, y, rho), expected)
