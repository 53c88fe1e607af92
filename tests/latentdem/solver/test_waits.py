"""What makes the host wait for a GPU, counted on a stand-in for one; see `tests/stand_in.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem import HQS, Blur, LatentDEM, Posterior, Proximal
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.priors.unet import UNet
from latentdem.solver.data_weight import MostCautious, _grids
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Pass, run_passes

from ...stand_in import DEVICE, Recorder, Waits, fetch, put, stand_in_device

SIZE = 9
Scene = Callable[..., Tensor]


def nothing(value: Any) -> Any:
    return value


def frame(holes: bool = False) -> Tensor:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 5:-5, 5:-5] = 1
    if holes:
        mask[..., 14:17, 14:18] = 0
    return mask


def solver(on: Callable[[Any], Any], mask: Tensor | None, **options: Any) -> LatentDEM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(8, 8, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4)
        autoencoder = EmbeddedAutoencoder(widths=(8, 16))
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    prior, denoiser = EmbeddedPrior(autoencoder, unet, abar), load_kernel_denoiser()
    for network in (prior.unet, prior.autoencoder, denoiser):
        on(network)
    hqs = HQS(2, delta=1e3, centre=True, noise_level=0.05)
    operator = Blur(SIZE, denoiser, hqs, mask=None if mask is None else on(mask))
    return LatentDEM(prior, operator, **{"num_samples": 2, "m_step_from": (1000, 600), **options})


def run(on: Callable[[Any], Any], y: Tensor, steps: int, mask: Tensor | None, **options: Any) -> Any:
    """Image, kernel and the trace of a run of two images on a device."""
    generator = torch.Generator().manual_seed(0)
    states: list[Any] = []
    sigma, kernel = torch.full((2,), 0.02), gaussian_kernel(SIZE, 2).repeat(2, 1, 1, 1)
    image, found = solver(on, mask, **options)(
        on(y), on(kernel), on(sigma), generator=generator, steps=steps, on_step=states.append
    )
    return image, found, torch.stack([state.step.residual for state in states])


@pytest.fixture(autouse=True)
def _no_grids() -> Iterator[None]:
    """None that another test has copied to a device, and none on the stand-in after a test."""
    _grids.cache_clear()
    yield
    _grids.cache_clear()


@pytest.fixture
def y(scene: Scene) -> Tensor:
    return torch.cat([scene(32, 32, seed=seed) for seed in (1, 2)])


OF_A_PASS = {("to the device", "draws.alpha_table"): 1, ("to the device", "latentdem._moving"): 1}
OF_A_MASK = {
    ("nonzero", "frame_preconditioner._lines"): 2,
    ("to the host", "frame_preconditioner._lines"): 2,
    ("to the device", "frame_preconditioner._lines"): 2,
    ("_local_scalar_dense", "frame_preconditioner.is_frame"): 1,
}


@pytest.mark.parametrize(
    ("e_step", "framed", "replayed"),
    [
        (Proximal(), False, 2),  # of 4 steps, two of each of two kinds
        (Proximal(MostCautious()), True, 1),  # and the first one, which has no solution to start from
        (Posterior(), False, 2),
    ],
    ids=["proximal", "frame", "posterior"],
)
def test_no_step_waits(
    monkeypatch: pytest.MonkeyPatch, y: Tensor, e_step: Any, framed: bool, replayed: int
) -> None:
    """Not one more with more steps, captured or not, and the results are those of the CPU."""
    mask = frame() if framed else None
    monkeypatch.setattr(Recorder, "replayed", 0)
    counted: list[Waits] = []
    for steps in (1, 4):
        with stand_in_device(monkeypatch) as waits:
            _grids(DEVICE, y.dtype)  # copied once for all runs
            waits.clear()
            results = run(put, y, steps, mask, e_step=e_step)
        counted.append(waits)
    assert counted[0].counts() == counted[1].counts()
    assert counted[1].counts() == OF_A_PASS | (OF_A_MASK if framed else {})
    assert Recorder.replayed == replayed
    for found, expected in zip(results, run(nothing, y, 4, mask, e_step=e_step), strict=True):
        torch.testing.assert_close(fetch(found), expected, atol=2e-4, rtol=1e-3)


def test_many_holes_in_a_mask_are_asked_for(monkeypatch: pytest.MonkeyPatch, y: Tensor) -> None:
    """Their number of iterations is not known in advance: nothing else waits in a step."""
    with stand_in_device(monkeypatch) as waits:
        run(put, y, 2, frame(holes=True))
    others = set(waits) - set(OF_A_PASS | OF_A_MASK)
    assert {where for _, where in others} == {"masked.conjugate_gradients"}


def test_a_trace_is_copied_once_for_each_pass(monkeypatch: pytest.MonkeyPatch, y: Tensor) -> None:
    with stand_in_device(monkeypatch) as waits:
        candidates = run_passes(
            solver(put, None),
            (Pass(2), Pass(4, 500)),
            Measurement(put(y), put(torch.full((2,), 0.02))),
            put(gaussian_kernel(SIZE, 2).repeat(2, 1, 1, 1)),
            torch.Generator().manual_seed(0),
            consistency=MostCautious(),
        )
    assert len(candidates.trace) == 4
    assert all(type(step.parameters) is Tensor for step in candidates.trace)
    assert waits.counts() == {
        ("to the device", "draws.alpha_table"): 2,
        ("to the device", "latentdem._moving"): 1,  # in the second pass, all kernels move
        ("to the host", "state.on_host"): 2 * 2,  # residuals and parameters
        ("to the device", "data_weight._grids"): 2,  # once for all runs
    }
