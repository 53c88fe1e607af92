"""Results as a caller and a notebook see them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.images import read_image
from latentdem.io.inputs import Source, open_image
from latentdem.operators.kernels import gaussian_kernel
from latentdem.output.pictures import uncertainty_levels, write_uncertainty
from latentdem.output.result import Restored, Result
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]


def result_of(x: Tensor, source: Source | None = None) -> Result:
    count = len(x)
    kernel = gaussian_kernel(5, 1).repeat(count, 1, 1, 1)
    trace = [TraceStep("search", t, torch.full((count,), 0.1), kernel) for t in (900, 500)]
    sigma = 0.01 * torch.arange(1, count + 1)
    return Result(0.5 * x, kernel, x, sigma, sigma, trace, source=source)


def restored_of(x: Tensor) -> Restored:
    sigma = torch.full((len(x),), 0.01)
    return Restored(0.5 * x, {"gamma": torch.arange(len(x))[:, None] + 1.5}, x, sigma, sigma)


@pytest.fixture
def three(scene: Scene) -> Tensor:
    return torch.cat([scene(20, 24, seed=seed) for seed in range(3)])


@pytest.mark.parametrize("make", [result_of, restored_of])
def test_a_result_is_a_sequence_of_results(three: Tensor, make: Callable[[Tensor], Result]) -> None:
    result = make(three)
    assert len(result) == 3
    parts = list(result)
    assert [len(part) for part in parts] == [1, 1, 1]
    assert torch.equal(torch.cat([part.tensor for part in parts]), result.tensor)
    assert torch.equal(result[-1].tensor, parts[2].tensor)
    assert torch.equal(result[1:].tensor, result.tensor[1:])
    assert result[::2].noise_sigma.shape == (2,)
    assert len(result[3:]) == 0
    for index in (3, 7, -4):
        with pytest.raises(IndexError, match=f"index {index}"):
            result[index]


def test_parts_keep_their_trace_and_parameters(three: Tensor) -> None:
    part = result_of(three)[1]
    assert part.trace[0].parameters.shape == (1, 1, 5, 5)
    assert part.noise_sigma.tolist() == pytest.approx([0.02])
    assert restored_of(three)[-1].parameters["gamma"].tolist() == [[3.5]]


def test_repr_is_short(three: Tensor) -> None:
    assert repr(result_of(three)) == "<Result: 3 images of 24 x 20 pixels, RGB; kernel 5 x 5>"
    one = "<Result: 1 image of 24 x 20 pixels, RGB; kernel 5 x 5, noise sigma 0.01, residual 0.01>"
    assert repr(result_of(three)[0]) == one
    poor = result_of(three[:1])
    poor.unexplained = torch.ones(1)
    assert repr(poor).endswith(", not explained>")
    restored = "<Restored: 1 image of 24 x 20 pixels, grey; gamma 1.5, noise sigma 0.01, residual 0.01>"
    assert repr(restored_of(three[:1, :1])) == restored


def test_a_notebook_shows_input_result_and_kernel(three: Tensor) -> None:
    html = result_of(three)._repr_html_()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    opened = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in pictures]
    assert [picture.size for picture in opened] == [(24, 20), (24, 20), (160, 160)]
    assert "3 images of 24 x 20 pixels" in html
    sheet = Image.open(io.BytesIO(result_of(three)._repr_png_()))
    assert sheet.size == (24 + 8 + 24 + 8 + 160, 160)
    assert restored_of(three[:, :1])._repr_html_().count("<img") == 2


def test_large_pictures_are_reduced_for_a_notebook() -> None:
    result = result_of(torch.zeros(1, 1, 600, 1200))
    assert len(result._repr_html_()) < 20_000


def test_images_in_the_form_that_came_in(scene: Scene) -> None:
    array = (scene(20, 24)[0].permute(1, 2, 0).numpy() + 1) / 2
    source = open_image(array)
    result = result_of(source.pixels, source)
    np.testing.assert_allclose(result.image, array / 2 + 0.25, atol=1e-6)
    np.testing.assert_allclose(result.images[0], result.image)
    np.testing.assert_allclose(result.numpy(), result.image, atol=1e-6)
    assert result.pil().mode == "RGB"
    assert result_of(source.pixels).image is not None


def test_save_keeps_depth_transparency_and_metadata(tmp_path: Path, scene: Scene) -> None:
    deep = ((scene(20, 24)[0].permute(1, 2, 0).numpy() + 1) * 32767.5).round().astype(np.uint16)
    alpha = np.full((20, 24, 1), 30000, np.uint16)
    source = open_image(np.concatenate([deep, alpha], axis=-1))
    path = result_of(source.pixels, source).save(tmp_path / "a.png")
    read = read_image(path)
    assert (read.bits, path.name) == (16, "a.png")
    np.testing.assert_array_equal(read.alpha, alpha[..., 0])
    assert result_of(source.pixels, source).numpy().shape == (20, 24, 4)
    assert result_of(source.pixels, source).pil().mode == "RGBA"

    Image.fromarray((deep // 257).astype(np.uint8)).save(tmp_path / "b.jpg", dpi=(300, 300), comment="C")
    source = open_image(tmp_path / "b.jpg")
    result_of(source.pixels, source).save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").metadata == read_image(tmp_path / "b.jpg").metadata
    assert result_of(source.pixels, source).image.info["dpi"] == (300, 300)
    with pytest.raises(UserError, match="does not name an image format"):
        result_of(source.pixels, source).save(tmp_path / "c.txt")


def test_uncertainty_is_written_as_numbers_and_as_a_picture(tmp_path: Path) -> None:
    spread = torch.full((2, 1, 20, 24), 0.02)
    spread[0, 0, :, :12] = 0.1
    spread[0, 0, 0, 0] = 5.0  # a single pixel does not leave the rest dark
    array, picture = write_uncertainty(tmp_path / "a_uncertainty", spread)
    np.testing.assert_array_equal(np.load(array), spread[0, 0].numpy())
    with Image.open(picture) as image:
        levels = np.asarray(image)
    assert (levels[5, 0], levels[5, 20]) == (255, 51)
    assert uncertainty_levels(torch.zeros(1, 1, 4, 4))[0].max() == 0


def test_a_notebook_shows_the_uncertainty(three: Tensor) -> None:
    result = result_of(three)
    result.uncertainty = torch.full((3, 1, 20, 24), 0.1)
    html = result._repr_html_()
    assert html.count("<img") == 4
    assert "uncertainty, white is 0.1" in html
    assert result.mean_uncertainty is not None
    assert result.mean_uncertainty.tolist() == pytest.approx([0.1] * 3)


def test_save_of_one_image_of_a_batch(tmp_path: Path, three: Tensor) -> None:
    result = result_of(three)
    result.save(tmp_path / "a.png", index=2)
    assert (read_image(tmp_path / "a.png").pixels - result.tensor[2]).abs().max() < 1 / 127


def test_transparency_of_an_image_that_grows(scene: Scene) -> None:
    array = np.dstack([(scene(20, 24)[0].permute(1, 2, 0).numpy() + 1) / 2, np.full((20, 24), 0.5)])
    source = open_image(array)
    large = torch.nn.functional.interpolate(source.pixels, scale_factor=2)
    result = result_of(large, source)
    assert result.image.shape == (40, 48, 4)
    np.testing.assert_allclose(result.image[..., 3], 0.5)
    assert result.pil().size == (48, 40)
