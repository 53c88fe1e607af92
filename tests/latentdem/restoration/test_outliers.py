from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import motion_kernels
from latentdem.restoration.boundary import looks_circular
from latentdem.restoration.outliers import (
    blown_out_pixels,
    constant_lines,
    isolated_pixels,
    sharp_pixels,
)

Find = Callable[[Tensor], Tensor]
ALL = [isolated_pixels, constant_lines, sharp_pixels, blown_out_pixels]
SIDE = 112


def eight_bits(y: Tensor) -> Tensor:
    return ((y.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def blurred(x: Tensor | None = None, sigma: float = 0.003, size: int = 15) -> Tensor:
    """(3, 112, 112) blurred photograph of 8 bits, without the frame that wraps around."""
    if x is None:
        x = torch.from_numpy(data.astronaut()[40:180, 160:300].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    y = ext.blur(x, motion_kernels(1, size, 0.5, 3))[..., 14:-14, 14:-14]
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return eight_bits(y + sigma * noise)[0]


@pytest.mark.parametrize("find", ALL)
@pytest.mark.parametrize("sigma", [0.0, 0.003, 0.02, 0.1])
def test_blurred_photographs_have_none(find: Find, sigma: float) -> None:
    assert float(find(blurred(sigma=sigma)).float().mean()) < 1e-3


@pytest.mark.parametrize("find", ALL)
@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_constant_pictures_have_none(find: Find, value: float) -> None:
    assert not find(torch.full((3, 40, 30), value)).any()


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_hot_and_dead_pixels(value: float) -> None:
    y = blurred()
    rows, columns = torch.randint(0, SIDE, (2, 40), generator=torch.Generator().manual_seed(1))
    visible = (y[:, rows, columns] - value).abs().amax(0) > 0.8
    y[:, rows, columns] = value
    found = isolated_pixels(y)
    assert found[rows[visible], columns[visible]].float().mean() > 0.95
    found[rows, columns] = False
    assert not found.any()


def test_noise_on_every_tenth_pixel_is_no_defect() -> None:
    y = blurred()
    y[:, torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(2)) < 0.1] = -1.0
    y[:, torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.1] = 1.0
    assert not isolated_pixels(y).any()


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(4, None), slice(None)),  # black rows
        (slice(None), slice(None, -1)),  # a black last column
        (slice(20, -20), slice(None)),  # a letterbox
        (slice(6, -6), slice(6, -6)),  # a border
    ],
)
@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_frames(rows: slice, columns: slice, value: float) -> None:
    y, expected = torch.full((3, SIDE, SIDE), value), torch.ones(SIDE, SIDE, dtype=torch.bool)
    y[:, rows, columns], expected[rows, columns] = blurred()[:, rows, columns], False
    assert torch.equal(constant_lines(y), expected)
    assert not looks_circular(y[None])


def test_dead_row_and_column() -> None:
    y, expected = blurred(), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    y[:, 50], expected[50] = -1.0, True
    y[:, :, 70], expected[:, 70] = 1.0, True
    assert torch.equal(constant_lines(y), expected)


@pytest.mark.parametrize("size", [10, 14, 24])
def test_date_stamp(size: int) -> None:
    y = blurred()
    picture = Image.fromarray(((y + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    ImageDraw.Draw(picture).text((8, 60), "28 11", fill=(255, 160, 40), font=ImageFont.load_default(size))
    stamped = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1
    changed = (stamped - y).abs().amax(0) > 0.05
    found = sharp_pixels(stamped)
    assert found[changed].float().mean() > 0.95
    assert found.float().mean() < 0.35


def test_a_glint_in_a_nearly_sharp_photograph_is_no_stamp() -> None:
    """The rim of a cup is soft, the light on its coffee is not."""
    cup = torch.from_numpy(data.coffee()[60:210:2, 193:321:2].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    y = ext.blur(cup, motion_kernels(1, 6, 0.5, 20))[0, :, 6:-6, 6:-6]
    assert not sharp_pixels(y).any()


def test_sharp_photograph_has_no_foreign_structures() -> None:
    sharp = torch.from_numpy(data.astronaut()[:200, 100:300].copy()).permute(2, 0, 1) / 127.5 - 1
    assert not sharp_pixels(sharp).any()


def test_blown_out_lights() -> None:
    x = torch.from_numpy(data.astronaut()[40:180, 160:300].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    x = x * 0.8 - 0.2
    for row, column in ((50, 40), (90, 100), (100, 50)):
        x[..., row : row + 4, column : column + 4] = 20.0
    y = blurred(x)
    clipped = (y >= 1).any(0)
    found = blown_out_pixels(y)
    assert found[clipped].float().mean() > 0.9
    assert found.sum() < 2.5 * clipped.sum()


def test_white_page_is_no_light() -> None:
    page = Image.new("RGB", (140, 140), "white")
    for row in range(10, 130, 24):
        ImageDraw.Draw(page).text((4, row), "a page of text", fill=(0, 0, 0), font=ImageFont.load_default(18))
    x = torch.from_numpy(np.array(page)).permute(2, 0, 1)[None] / 127.5 - 1
    for sigma in (0.0, 0.01):
        assert float(blown_out_pixels(blurred(x, sigma)).float().mean()) < 0.02


def test_black_sky_is_black() -> None:
    x = torch.full((1, 3, 140, 140), -1.0)
    x[..., 90:, 30:100] = torch.linspace(-0.6, 0.6, 70)
    for find in ALL:
        assert float(find(blurred(x)).float().mean()) < 0.01
