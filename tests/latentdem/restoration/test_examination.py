from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from skimage import data
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem import Settings
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration.data_range import DataRange, quantisation_step
from latentdem.restoration.examination import Examination, received
from latentdem.restoration.image import ImageRestoration
from latentdem.restoration.recording import Recording, wraps_around
from latentdem.solver.frame import filled

Scene = Callable[..., Tensor]


def levels(x: Tensor, bits: int, top: int) -> Tensor:
    """`x` in 2^bits levels of a file whose greatest level is `top`."""
    return 2 * ((x + 1) / 2 * (2**bits - 1)).round() / top - 1


def restored(y: Tensor, prior: EmbeddedPrior, **options: object) -> latentdem.Result:
    settings = replace(Settings(9, steps=3, boundary="valid"), **options)
    restoration = ImageRestoration(y, settings, gaussian_kernel(9, 1.5))
    return restoration.run(prior, KernelDenoiser().requires_grad_(False), torch.device("cpu"))


@pytest.mark.parametrize(
    ("bits", "top", "high"), [(8, 255, 255), (12, 65535, 4095), (10, 65535, 1023), (16, 65535, 65535)]
)
def test_range_is_that_of_the_bits(scene: Scene, bits: int, top: int, high: int) -> None:
    y = levels(scene(), bits, top)
    data_range = DataRange.of(y)
    assert float(data_range.low) == -1
    assert float(data_range.high) == pytest.approx(2 * high / top - 1)
    assert data_range.is_full == (high == top)
    assert quantisation_step(y) == pytest.approx(2 / top, rel=2e-2)


def test_dark_eight_bits_keep_their_range(scene: Scene) -> None:
    y = levels(scene() / 16 - 15 / 16, 8, 255)
    examined = Examination.of(y)
    assert examined.y is y
    assert examined.mask is None


def test_data_on_a_pedestal_are_scaled_by_their_values() -> None:
    y = levels(torch.linspace(0.1, 0.11, 400).reshape(1, 1, 20, 20), 16, 65535)
    stretched = DataRange.of(y).stretched(y)
    assert (float(stretched.min()), float(stretched.max())) == (-1, 1)
    torch.testing.assert_close(DataRange.of(y).restored(stretched), y)


def test_hot_pixels_do_not_count_for_the_range(scene: Scene) -> None:
    y = levels(torch.nn.functional.avg_pool2d(scene(60, 60), 5, 1, 2), 12, 65535)
    expected = DataRange.of(y)
    y[..., 20, 30] = 1.0
    assert torch.equal(Examination.of(y).data_range.high, expected.high)


@pytest.mark.parametrize("sigma", [None, 0.01])
def test_twelve_bits_are_restored_as_if_they_filled_the_file(
    scene: Scene, tiny_prior: EmbeddedPrior, sigma: float | None
) -> None:
    x = scene(40, 40)
    whole = 2 * ((x + 1) / 2 * 4095).round() / 4095 - 1
    scale = 4095 / 65535
    full = restored(whole, tiny_prior, noise_sigma=sigma)
    part = restored((whole + 1) * scale - 1, tiny_prior, noise_sigma=None if sigma is None else sigma * scale)
    torch.testing.assert_close((part.image + 1) / scale - 1, full.image, atol=5e-3, rtol=0)
    torch.testing.assert_close(part.noise_sigma / scale, full.noise_sigma, rtol=1e-2, atol=0)
    torch.testing.assert_close(part.residual / scale, full.residual, rtol=2e-2, atol=0)


def test_mask_reaches_the_measurement_and_frames_come_back(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = torch.nn.functional.avg_pool2d(scene(48, 48), 3, 1, 1)
    y[..., :6, :] = -1
    examined = Examination.of(y)
    measurement = Recording.of(examined, Settings(9), wraps_around(y, Settings(9))).measurement
    assert not measurement.circular
    assert measurement.mask is not None
    assert not measurement.mask[..., :7, :].any()
    assert measurement.mask[..., 7:, :].float().mean() > 0.9
    result = restored(y, tiny_prior)
    assert torch.equal(result.image[..., :6, :], y[..., :6, :])


def test_light_that_went_into_blown_out_pixels_alone_stays_as_bright() -> None:
    kernel = torch.zeros(2, 1, 5, 5)
    kernel[:, :, 2, 2:] = 1 / 3  # to the right by up to two pixels
    y = torch.zeros(2, 3, 12, 20)
    region = torch.zeros(2, 1, 12, 20, dtype=torch.bool)
    region[..., 3:9, 4:12] = True
    y[0, :, 3:9, 4:12], y[1, :2, 3:9, 4:12], y[1, 2, 3:9, 4:12] = 1, -1, -0.5
    examined = Examination(y, 1 - region.float(), None, DataRange.full(2), clipped=region)
    image = torch.full_like(y, 0.25)
    result = examined.restored(image, y, kernel)
    whole = torch.zeros_like(region[0, 0])
    whole[3:9, 4:10] = True  # their light arrived in the region; that of the next two columns only in part
    assert torch.equal(result[0] == 1, whole.expand(3, -1, -1))
    assert torch.equal(result[1] == -1, torch.stack([whole, whole, torch.zeros_like(whole)]))
    assert torch.equal(result[1, 2] == -0.5, whole)  # a channel that is not clipped goes with the others
    assert (result[0, 0, 3:9, 10] < 1).all()
    assert (result[0, 0, 3:9, 10] > 0.25).all()
    assert (result[:, :, :, 11:] == 0.25).all()


def test_blown_out_pixels_of_a_photograph_do_not_become_dark(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    x = 0.5 * scene(64, 64)
    x[..., 20:40, 24:46] = 4
    y = torch.nn.functional.avg_pool2d(x, 5, 1, 2).clamp(-1, 1)
    examined = Examination.of(y)
    assert examined.clipped is not None
    bright = examined.clipped & (y == 1).all(1, keepdim=True)
    assert bright.any()
    inside = bright & (received(bright, gaussian_kernel(9, 1.5)) > 0.95)
    assert inside.any()
    assert (restored(y, tiny_prior).tensor[inside.expand_as(y)] > 0.9999).all()


def test_transparent_pixels_do_not_count_and_come_back(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y, mask = scene(40, 40), torch.zeros(1, 1, 40, 40)
    mask[..., 8:32, 8:32] = 1
    hidden = torch.where(mask > 0, y, -1.0)
    options = {"kernel": gaussian_kernel(9, 1.5), "prior": tiny_prior, "steps": 2, "device": "cpu"}
    result = latentdem.deblur(hidden, mask=mask, **options)
    assert torch.equal(result.image[mask.expand_as(y) == 0], hidden[mask.expand_as(y) == 0])
    other = latentdem.deblur(torch.where(mask > 0, y, 1.0), mask=mask, **options)
    torch.testing.assert_close(result.image * mask, other.image * mask)


def test_each_photograph_of_a_batch_has_its_own_mask(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = torch.cat([scene(40, 40), scene(40, 40, seed=1)])
    y[:1, :, :5] = 1.0
    both = restored(y, tiny_prior, noise_sigma=0.02)
    for i in range(2):
        alone = restored(y[i : i + 1], tiny_prior, noise_sigma=0.02)
        torch.testing.assert_close(both.image[i : i + 1], alone.image, atol=1e-4, rtol=1e-4)


def test_filled_values_are_smooth() -> None:
    y = torch.linspace(-1, 1, 64).expand(1, 3, 48, 64)
    mask = torch.ones(1, 1, 48, 64)
    mask[..., 10:30, 20:40] = 0
    mask[..., :5, :] = 0
    smooth = filled(torch.where(mask > 0, y, 9.0), mask)
    assert torch.equal(smooth * mask, y * mask)
    assert (smooth - y).abs().max() < 0.5


@pytest.mark.parametrize("shape", [(1, 1, 30, 40), (3, 1, 40, 40), (1, 3, 40, 40), (40,)])
def test_mask_of_another_shape_is_refused(
    scene: Scene, tiny_prior: EmbeddedPrior, shape: tuple[int, ...]
) -> None:
    with pytest.raises(latentdem.UserError, match="mask"):
        latentdem.deblur(scene(40, 40), 9, mask=torch.ones(shape), prior=tiny_prior, device="cpu")


def test_values_a_little_beyond_white_have_the_full_range(scene: Scene) -> None:
    """Noise takes simulated measurements out of [-1, 1]."""
    y = scene()
    y[..., 0, 0] = 1.01
    data_range = DataRange.of(y)
    assert (float(data_range.low), float(data_range.high)) == (-1, 1)


def test_a_glint_in_a_nearly_sharp_photograph_is_no_stamp() -> None:
    """The rim of a cup is soft, the light on its coffee is not; the kernel says that it may be so sharp."""
    cup = torch.from_numpy(data.coffee()[60:210:2, 193:321:2].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    kernel = motion_kernels(1, 6, 0.5, 20)
    y = ext.blur(cup, kernel)[..., 6:-6, 6:-6]
    glint = (..., slice(22, 26), slice(46, 50))
    masks = [Examination.of(y, kernel=k).mask for k in (None, gaussian_kernel(9, 1.5), kernel)]
    counts = [int(mask[glint].sum()) for mask in masks if mask is not None]
    assert counts == [1, 1, 16]
