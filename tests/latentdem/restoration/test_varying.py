"""Photographs of a camera that turned: their restoration in tiles, each with its own kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from latentdem import Settings, UserError
from latentdem.operators.kernels import delta_kernel, gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration import varying
from latentdem.restoration.image import ImageRestoration
from latentdem.search.camera_poses import KernelField
from latentdem.search.layout import Layout

Scene = Callable[..., Tensor]


@pytest.fixture
def known_field(monkeypatch: pytest.MonkeyPatch) -> KernelField:
    """A field that is found without a search: half of the time the camera is turned by 0.05 radians."""
    weights = torch.zeros(2, 7, 7)
    weights[:, 3, 3] = 0.5
    field = KernelField(weights, torch.tensor([0.0, 0.05]), (48, 60))
    monkeypatch.setattr(varying, "estimate_field", lambda *_: field)
    monkeypatch.setattr(varying, "field_score", lambda *_, turned=False: -4.97 if turned else -5.0)
    return field


def run(y: Tensor, settings: Settings, prior: EmbeddedPrior, seen: list[tuple[str, int, int]]) -> object:
    denoiser = KernelDenoiser().requires_grad_(False)
    restoration = ImageRestoration(y, settings)
    return restoration.run(prior, denoiser, torch.device("cpu"), progress=lambda *event: seen.append(event))


def test_every_tile_is_restored_with_the_kernel_of_its_middle(
    scene: Scene, tiny_prior: EmbeddedPrior, known_field: KernelField, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[slice, slice]] = []
    in_window = KernelField.in_window

    def recorded(self: KernelField, rows: slice, columns: slice) -> Tensor:
        asked.append((rows, columns))
        return in_window(self, rows, columns)

    monkeypatch.setattr(KernelField, "in_window", recorded)
    y = scene(48, 60).repeat(2, 1, 1, 1)
    seen: list[tuple[str, int, int]] = []
    result = run(y, Settings(7, 0.02, steps=3, blur="varying", boundary="valid"), tiny_prior, seen)
    assert len({(rows.start, columns.start) for rows, columns in asked}) > 2
    assert result.tensor.shape == y.shape
    assert result.kernel.shape == (2, 1, 7, 7)
    assert result.kernel_field.shape == (2, 25, 7, 7)
    assert not torch.equal(result.kernel_field[0, 0], result.kernel_field[0, 12])
    assert torch.equal(result.kernel_field[0, 12], result.kernel[0, 0])
    assert result.lead.tolist() == pytest.approx([0.03, 0.03])
    assert torch.isfinite(result.unexplained).all()
    assert seen[-1][1] == seen[-1][2]
    assert result[1].kernel_field.shape == (1, 25, 7, 7)
    assert result.plot()


def test_what_is_refused_has_kernels_without_blur(
    scene: Scene, tiny_prior: EmbeddedPrior, known_field: KernelField
) -> None:
    result = run(scene(48, 60), Settings(7, 0.02, steps=3, blur="varying"), tiny_prior, [])
    result.unexplained, result.lead = torch.ones(1), torch.zeros(1)
    refused = result.or_input()
    assert torch.equal(refused.kernel_field, delta_kernel(7).expand(1, 25, 7, 7))


def test_a_given_kernel_is_not_a_varying_one(scene: Scene) -> None:
    with pytest.raises(UserError, match="leave it out, or the varying blur"):
        ImageRestoration(scene(48, 60), Settings(blur="varying"), gaussian_kernel(7, 1.0))


def test_an_unknown_blur_is_refused() -> None:
    with pytest.raises(UserError, match="give uniform or varying"):
        Settings(blur="round")  # type: ignore[arg-type]


def test_tiles_are_smaller_where_the_blur_varies_and_never_the_whole() -> None:
    large, small = (Layout(n, n, 31, False, True) for n in (800, 90))
    assert large.tile_size == (226, 226)
    assert small.tile_size == (62, 62)
    assert not small.fits
