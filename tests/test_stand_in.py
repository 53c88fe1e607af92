"""The stand-in for a CUDA device notes what would make the host wait, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .stand_in import DEVICE, Recorder, fetch, put, stand_in_device


@pytest.mark.parametrize(
    ("operation", "noted"),
    [
        (lambda x: x[0, 0].item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3, device=x.device)), "_linalg_check_errors"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index by a mask"),
        (lambda x: x[[0, -1]], "index from the host"),
        (lambda x: x.cpu(), "to the host"),
        (lambda x: x.tolist(), "to the host"),
        (lambda x: x.numpy(force=True), "to the host"),
        (lambda x: torch.zeros(3).copy_(x[0]), "copy_"),
        (lambda x: torch.tensor([1, 2], device=x.device), "to the device"),
        (lambda x: torch.as_tensor(1.0, device=x.device), "to the device"),
        (lambda x: torch.zeros(3).to(x), "to the device"),
        (lambda x: x.new_tensor([1.0]), "to the device"),
        (lambda x: x.repeat_interleave(torch.full((3,), 2, device=x.device), 0), "repeat_interleave"),
    ],
)
def test_what_waits_is_noted(
    monkeypatch: pytest.MonkeyPatch, operation: Callable[[Tensor], object], noted: str
) -> None:
    with stand_in_device(monkeypatch) as waits:
        operation(put(torch.randn(3, 3)))
    assert [what for what, _ in waits] == [noted]


def test_other_operations_are_not_noted_and_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(3, 3)
    with stand_in_device(monkeypatch) as waits:
        x = put(values.clone())
        results = [
            2 * x + 1,
            x[1:, None].flip(0),
            x[torch.arange(2, device=x.device)],
            torch.where(x > 0, x, 0.0),
            torch.full((), 3, device=x.device),
            torch.linalg.cholesky_ex(x @ x.mT).L,
            x.to(torch.float64),
            x.repeat_interleave(2, 0),
            x.mul_(2),
        ]
    assert not waits
    assert all(result.device == DEVICE and result.is_cuda for result in results)
    assert torch.equal(fetch(results[0]), 2 * values + 1)


def test_tensors_of_two_devices_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_device(monkeypatch), pytest.raises(AssertionError, match="mixes tensors of the CPU"):
        put(torch.zeros(3)) + torch.zeros(3)


def test_what_waits_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_device(monkeypatch) as waits:
        x, recorder = put(torch.ones(3)), Recorder(waits)
        replay, result = recorder.record(lambda: 2 * x)
        assert not fetch(result).any()
        replay()
        assert torch.equal(fetch(result), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="not permitted"):
            recorder.record(lambda: x[0].item())
