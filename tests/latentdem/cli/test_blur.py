from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentdem.io.codecs import encode
from latentdem.io.images import read_image
from latentdem.io.kernels import read_kernel


@pytest.mark.parametrize("bits", [8, 16])
def test_blur_circular(cli: Any, here: Path, bits: int) -> None:
    array = (np.random.default_rng(0).random((40, 48, 3)) * (2**bits - 1)).astype(f"uint{bits}")
    encode(here / "a.png", array)
    cli.run("blur", "a.png", "-o", "b.png", "--kernel-size", 9, "--noise-sigma", 0.01, "--seed", 4)
    assert cli.names(here) == ["a.png", "b.png", "b_kernel.npy", "b_kernel.png"]
    sharp, blurred, kernel = read_image("a.png"), read_image("b.png"), read_kernel("b_kernel.npy")
    assert blurred.bits == bits
    import latentdem_ext

    error = blurred.pixels - latentdem_ext.blur(sharp.pixels, kernel)
    assert float(error.std()) == pytest.approx(0.01, rel=0.1)


def test_blur_valid_writes_its_reference(cli: Any, here: Path) -> None:
    options = ["--kernel-size", 8, "--boundary", "valid", "--noise-sigma", 0, "--intensity", 0.3]
    cli.run("blur", "../photo.png", "-o", "cases/", *options)
    assert cli.names(here / "cases") == [
        "photo_blurred.png",
        "photo_blurred_kernel.npy",
        "photo_blurred_kernel.png",
        "photo_blurred_reference.png",
    ]
    blurred, reference = (
        read_image(here / "cases" / f"photo_blurred{s}.png").pixels for s in ("", "_reference")
    )
    assert blurred.shape == reference.shape == (1, 3, 33, 41)
    # y[n] reads x[n - (m - 4)], m = 0..7: rows n - 3 to n + 4.
    assert torch.equal(reference, read_image("../photo.png").pixels[..., 3:36, 3:44])


def test_blur_depends_on_the_seed_alone(cli: Any, here: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        cli.run("blur", "../photo.png", "-o", f"{name}.png", "--kernel-size", 9, "--seed", seed)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["missing.png", "-o", "b.png"], "does not exist"),
        (["../photo.png", "-o", "b.jpg"], "b.jpg does not end in .png"),
        (["../photo.png", "-o", "../photo.png"], "would be overwritten"),
        (["../photo.png", "-o", "b.png", "--kernel-size", "2"], "at least 3"),
        (["../photo.png", "-o", "b.png", "--kernel-size", "41"], "larger than the image"),
        (
            ["../photo.png", "-o", "b.png", "--kernel-size", "35", "--boundary", "valid"],
            "leaves less than 16 x 16",
        ),
    ],
)
def test_blur_refuses(cli: Any, here: Path, args: list[str], expected: str) -> None:
    assert expected in cli.sentence("blur", *args)
    assert cli.names(here) == []
