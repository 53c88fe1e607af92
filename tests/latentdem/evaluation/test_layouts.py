from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.evaluation.layouts import LAYOUTS, Layout, find_result
from latentdem.io.images import write_image
from latentdem.io.kernels import write_kernel
from latentdem.operators.kernels import motion_kernel

from ..payloads import Payload, numpy_file

Scene = Callable[..., Tensor]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.program)
def test_picture_and_kernel_of_each_program_are_found(layout: Layout, tmp_path: Path, scene: Scene) -> None:
    picture = tmp_path / (layout.picture.format(stem="street", index=3) + ".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_image(picture, scene())
    kernel = motion_kernel(9, 0.5, np.random.default_rng(0))
    if layout.kernel is not None:
        place = tmp_path / layout.kernel.format(stem="street", index=3)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_kernel(place, kernel.flip(-2, -1) if layout.turned else kernel)
    found = find_result(tmp_path, ("other", "street"), 3)
    assert found is not None
    assert found.read_picture().shape == (1, 3, 40, 48)
    if layout.kernel is None:
        assert found.read_kernel() is None
    else:
        read = found.read_kernel()
        assert read is not None
        torch.testing.assert_close(read, kernel)
    assert find_result(tmp_path, ("other",), 4) is None


def test_last_kernel_of_a_stack_counts(tmp_path: Path, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())
    last = motion_kernel(9, 0.5, np.random.default_rng(0))[0, 0].numpy()
    np.save(tmp_path / "a_kernel.npy", np.stack([np.ones((9, 9)), 3 * last]))
    found = find_result(tmp_path, ("a",), 0)
    assert found is not None
    kernel = found.read_kernel()
    assert kernel is not None
    np.testing.assert_allclose(kernel[0, 0].numpy(), last, atol=1e-6)
    np.save(tmp_path / "a_kernel.npy", np.full((2, 9, 9), -1.0))
    with pytest.raises(UserError, match="not square, or has negative"):
        found.read_kernel()


def test_code_in_a_kernel_file_is_not_run(tmp_path: Path, scene: Scene) -> None:
    payload = Payload(tmp_path / "ran")
    write_image(tmp_path / "a.png", scene())
    numpy_file(tmp_path / "a_kernel.npy", payload)
    found = find_result(tmp_path, ("a",), 0)
    assert found is not None
    with pytest.raises(UserError, match="not a readable"):
        found.read_kernel()
    assert not payload.trace.exists()
