from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import latentdem
from latentdem.io.inputs import to_tensor
from latentdem.io.kernels import read_kernel
from latentdem.metrics import image_metrics, kernel_metrics
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem_ext import _backends, use_backend

Scene = Callable[..., Tensor]


def deblur(image: Any, prior: Any, **options: Any) -> latentdem.Result:
    return latentdem.deblur(image, prior=prior, **{"kernel_size": 9, "steps": 2, "device": "cpu", **options})


def test_result_of_a_tensor(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = torch.cat([scene(20, 24), scene(20, 24, seed=1)])
    result = deblur(y, tiny_prior, seed=3)
    assert result.image.shape == y.shape
    assert result.kernel.shape == (2, 1, 9, 9)
    assert torch.equal(result.blurred, y)
    assert result.finite
    assert len(result) == 2
    assert result[1].image.shape == (1, 3, 20, 24)
    assert result.settings["seed"] == 3
    assert result.settings["boundary"] in ("circular", "valid")
    assert result.seconds["total"] >= result.seconds["kernel search"]
    assert result.residual.shape == result.noise_sigma.shape == (2,)


def test_every_kind_of_image(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    pixels = ((scene(20, 24)[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    options = {"kernel": gaussian_kernel(5, 1), "noise_sigma": 0.02}
    forms = [
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
    ]
    results = [deblur(image, tiny_prior, **options) for image in forms]
    assert all(torch.equal(results[0].tensor, result.tensor) for result in results[1:])
    kinds = [type(result.image) for result in results]
    assert kinds == [Image.Image, Image.Image, Image.Image, Image.Image, np.ndarray, Tensor]
    assert results[4].image.dtype == np.uint8
    assert results[5].image.shape == (3, 20, 24)
    np.testing.assert_array_equal(np.asarray(results[0].image), results[4].image)


def test_list_and_transparency_come_back(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    pixels = ((scene(20, 24)[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    alpha = np.full((20, 24, 1), 255, np.uint8)
    alpha[:4] = 0
    images = [pixels, np.concatenate([pixels, alpha], axis=-1)]
    result = deblur(images, tiny_prior, kernel=np.ones((3, 3)), noise_sigma=0.02)
    assert (
        [image.shape for image in result.image]
        == [image.shape for image in result.images]
        == [(20, 24, 3), (20, 24, 4)]
    )
    np.testing.assert_array_equal(result.image[1][..., 3:], alpha)
    np.testing.assert_array_equal(result[1].image[:4, :, :3], pixels[:4])  # pixels that nobody sees stay


def test_value_range_is_that_of_input_and_result(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    x = scene(20, 24)
    options = {"kernel": np.ones((3, 3)), "noise_sigma": 0.02}
    expected = deblur(x, tiny_prior, **options).image
    result = deblur(255 * (x + 1) / 2, tiny_prior, value_range=(0, 255), **options)
    torch.testing.assert_close(result.image, 255 * (expected + 1) / 2, atol=0.5, rtol=0)


def test_kernel_in_every_form(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    kernel = gaussian_kernel(5, 1)
    np.save(tmp_path / "k.npy", kernel[0, 0])
    for form in (kernel[0, 0], 7 * kernel[0, 0].numpy(), str(tmp_path / "k.npy")):
        result = deblur(scene(20, 24), tiny_prior, kernel=form, noise_sigma=0.02)
        torch.testing.assert_close(result.kernel, kernel)


def test_mask_in_every_form(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    counts = np.ones((20, 24), np.uint8)
    counts[:5] = 0
    Image.fromarray(counts).save(tmp_path / "m.png")  # white is 1
    x = scene(20, 24)
    for form in (counts, counts.astype(bool), torch.from_numpy(counts)[None, None], tmp_path / "m.png"):
        result = deblur(x, tiny_prior, kernel=np.ones((3, 3)), mask=form, noise_sigma=0.02)
        assert torch.equal(result.image[..., :5, :], x[..., :5, :])
        assert not torch.equal(result.image[..., 5:, :], x[..., 5:, :])


def test_grey_stays_grey(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    assert deblur(scene(20, 24, 1), tiny_prior).image.shape == (1, 1, 20, 24)


def test_known_kernel(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    kernel = gaussian_kernel(7, 1)
    result = deblur(scene(40, 48), tiny_prior, kernel=kernel, noise_sigma=0.02)
    assert torch.equal(result.kernel, kernel)
    assert result.settings["kernel_known"]
    assert result.settings["kernel_size"] == 7
    assert result.noise_sigma.tolist() == pytest.approx([0.02])


def test_posterior_with_two_samples(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    result = deblur(scene(20, 24), tiny_prior, e_step="posterior", steps=8, num_samples=2)
    assert result.image.shape == (1, 3, 20, 24)
    assert result.finite


def test_progress_reaches_the_end(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    seen: list[tuple[str, int, int]] = []
    deblur(scene(20, 24), tiny_prior, progress=lambda *event: seen.append(event))
    assert seen[-1][1] == seen[-1][2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "at least 3"),
        ({"kernel_size": 41}, "larger than the image"),
        ({"noise_sigma": 0.0}, "noise standard deviation"),
        ({"noise_sigma": float("nan")}, "noise standard deviation"),
        ({"e_step": "gibbs"}, "Unknown E-step"),
        ({"e_step": "posterior", "without": ["walls"]}, "no walls to leave out"),
        ({"without": ["gluing"]}, "the posterior one has such parts"),
        ({"steps": 1}, "2 steps"),
        ({"num_samples": 0}, "1 sample"),
        ({"prior": "sd99"}, "Unknown prior"),
        ({"device": "abacus"}, "Unknown device"),
        ({"device": "meta"}, "Unknown device"),
        ({"prior": "embedded", "precision": "int8"}, "Unknown precision"),
        ({"boundary": "round"}, "Unknown boundary"),
        ({"kernel": -gaussian_kernel(5, 1)}, "no positive value"),
        ({"kernel": torch.full((1, 1, 5, 5), torch.nan)}, "not finite"),
        ({"kernel": torch.ones(5, 7)}, "shape"),
        ({"kernel": gaussian_kernel(5, 1).repeat(3, 1, 1, 1)}, "shape"),
    ],
)
def test_wrong_arguments(
    scene: Scene, tiny_prior: EmbeddedPrior, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(latentdem.UserError, match=message):
        deblur(scene(40, 48), **{"prior": tiny_prior, **options})


def test_backend_that_does_not_exist(
    scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backends, "_environment", "opencl")
    with pytest.raises(latentdem.UserError, match="LATENTDEM_BACKEND cannot be used: there is no backend"):
        deblur(scene(40, 48), tiny_prior)


def test_backend_is_reported(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    with use_backend("reference"):
        result = deblur(scene(40, 48), tiny_prior, kernel=gaussian_kernel(7, 1))
    assert result.settings["backend"] == "reference"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    with pytest.raises(latentdem.UserError, match="No CUDA device"):
        deblur(scene(40, 48), tiny_prior, device="cuda")


def test_image_that_is_not_finite(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    with pytest.raises(latentdem.UserError, match="not finite"):
        deblur(scene(40, 48) * torch.nan, tiny_prior)


def test_public_names_can_be_imported() -> None:
    assert all(getattr(latentdem, name) is not None for name in latentdem.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        latentdem.deblurr  # noqa: B018


@pytest.mark.slow
def test_the_example_of_the_readme_is_restored() -> None:
    """The shipped weights on the shipped photograph, everything estimated."""
    folder = Path(__file__).resolve().parents[3] / "examples"
    result = latentdem.deblur(folder / "blurred.png", device="cpu")
    sharp = to_tensor(folder / "sharp.png")
    before, after = (image_metrics(image, sharp) for image in (result.blurred, result.tensor))
    assert after.psnr_aligned > before.psnr_aligned + 1
    assert kernel_metrics(result.kernel, read_kernel(folder / "kernel.npy")).mnc > 0.85
