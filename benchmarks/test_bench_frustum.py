from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext

from .rows import DEVICE

# PyTorch is what runs on a GPU.
BACKENDS = ["reference", "cpp"] if DEVICE.type == "cpu" else ["reference"]
ROWS = 16  # eight hypotheses of a pair of views, in both directions


def cameras() -> tuple[torch.Tensor, torch.Tensor]:
    """Cameras as the search for poses compares them, 1.6 away from an object with a radius of 0.6."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.eye(3) + 0.3 * torch.randn(ROWS, 3, 3, generator=generator))[0]
    offset = torch.randn(ROWS, 3, 1, generator=generator)
    edge = torch.tensor([0.457, 0.457, 1.0])
    return torch.cat([turn * edge, offset], 2) / edge[:, None], torch.full((ROWS, 2), 1.6 / 0.6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["frustum_hits", "frustum_resample"])
def test_value_and_gradient_of_the_cameras(measure, name, backend):
    """What an M-step of the poses asks of the volumes of the embedded view-conditioned prior."""
    shape = (ROWS, 1, 32, 32, 32) if name == "frustum_hits" else (ROWS, 25, 16, 16, 16)
    volume = torch.rand(shape, device=DEVICE) * 0.3
    matrix, distances = (value.to(DEVICE) for value in cameras())

    @torch.enable_grad()
    def run(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
        moved = matrix.to(dtype, copy=True).requires_grad_()
        result = getattr(ext, name)(volume.to(dtype), moved, distances.to(dtype))
        (gradient,) = torch.autograd.grad(result.square().sum(), moved)
        return result.detach(), gradient

    with ext.use_backend("reference"):
        expected = run(torch.float64)
    measure(name, backend, " x ".join(map(str, shape)), run, expected, 1e-3)
