from __future__ import annotations

import pytest
import torch

from latentdem import UserError
from latentdem.checks import check_noise_sigma, resolve_device, resolve_precision


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert str(resolve_device(name)) == name
    assert str(resolve_device("auto")) == "cuda"
    with pytest.raises(UserError, match="There is no CUDA device 2; the last of the 2 is cuda:1"):
        resolve_device("cuda:2")


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert str(resolve_device("auto")) == "cpu"
    for name, message in (("cuda:1", "No CUDA device"), ("mps", "No MPS device"), ("xpu", "Unknown device")):
        with pytest.raises(UserError, match=message):
            resolve_device(name)


def test_precisions_by_name() -> None:
    assert resolve_precision("auto") is None
    assert resolve_precision("float16") == torch.float16
    with pytest.raises(UserError, match="Unknown precision 'half'"):
        resolve_precision("half")


def test_noise_levels_that_a_photograph_cannot_have() -> None:
    assert check_noise_sigma(1) == 1.0
    for sigma in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match=r"above 0 and at most 1 .*, not .*; leave it out"):
            check_noise_sigma(sigma)
