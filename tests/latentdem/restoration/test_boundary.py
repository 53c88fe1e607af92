from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import gaussian_kernel
from latentdem.restoration.boundary import looks_circular

Scene = Callable[..., Tensor]


@pytest.mark.parametrize("std", [1.0, 3.0])
def test_looks_circular(scene: Scene, std: float) -> None:
    y = ext.blur(scene(80, 90), gaussian_kernel(21, std))
    y = y + 0.01 * torch.randn_like(y)
    assert looks_circular(y)
    assert not looks_circular(y[..., 20:-17, 13:-20])
    assert not looks_circular(y[..., 13:-20])
