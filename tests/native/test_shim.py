"""The shim finds the faults it is there for."""

from __future__ import annotations

import ctypes
import subprocess

import pytest
import torch
from torch import Tensor

FAULTS = [
    "none",
    "missing_barrier",
    "barrier_for_some",
    "different_barriers",
    "unwritten_memory",
    "too_much_memory",
]
ORDERS = range(6)
EXPECTED = (torch.arange(64.0) + 1) % 64


@pytest.fixture
def run(shim, thread_order):
    function = ctypes.CDLL(shim.__file__).latentdem_shim_faulty
    function.restype = ctypes.c_char_p

    def run(fault: str, order: int) -> tuple[str, Tensor]:
        out = torch.full((64,), -1.0)
        thread_order(order)
        error = function(FAULTS.index(fault), ctypes.c_void_p(out.data_ptr()))
        return error.decode(), out

    return run


@pytest.fixture
def run_grid(shim, thread_order):
    """A cooperative kernel of three blocks, on the only three that the device holds."""
    function = ctypes.CDLL(shim.__file__).latentdem_shim_faulty_grid
    function.restype = ctypes.c_char_p

    def run_grid(fault: int, order: int) -> tuple[str, Tensor]:
        out = torch.full((3, 64), -1.0)
        thread_order(order)
        error = function(fault, ctypes.c_void_p(out.data_ptr()))
        return error.decode(), out

    return run_grid


def test_blocks_of_a_cooperative_kernel_wait_for_each_other(run_grid):
    expected = torch.tensor([[1.0], [2.0], [0.0]]).expand(3, 64)
    for order in ORDERS:
        error, out = run_grid(0, order)
        assert not error
        assert out.equal(expected)
    assert not all(run_grid(1, order)[1].equal(expected) for order in ORDERS)  # without the barrier
    error, _ = run_grid(2, 0)
    assert error.startswith("barrier divergence: thread 64 waits at ")
    assert error.endswith("thread 0 has ended")
    assert run_grid(3, 0)[0] == "invalid argument"


@pytest.mark.parametrize("order", ORDERS)
def test_right_kernel_is_right_in_every_order(run, order):
    error, out = run("none", order)
    assert not error
    assert out.equal(EXPECTED)


def test_missing_barrier_shows_in_some_order(run):
    results = [run("missing_barrier", order) for order in ORDERS]
    assert not any(error for error, _ in results)
    assert not all(out.equal(EXPECTED) for _, out in results)


def test_divergence_at_a_barrier_is_an_error(run):
    error, _ = run("barrier_for_some", 2)
    assert error.startswith("barrier divergence: thread 0 waits at ")
    assert error.endswith("thread 32 has ended")
    error, _ = run("different_barriers", 2)
    assert error.startswith("barrier divergence: thread 0 waits at ")
    assert "thread 32 waits at " in error
    error, _ = run("none", 2)
    assert not error


def test_shared_memory_starts_as_nan_and_is_limited(run):
    error, out = run("unwritten_memory", 0)
    assert not error
    assert out.isnan().nonzero().flatten().tolist() == [4]
    error, out = run("too_much_memory", 0)
    assert error == "invalid argument"
    assert out.eq(-1).all()


def test_kernels_run_under_sanitizers(sanitized):
    for options in ([], ["--unfilled"]):
        run = subprocess.run([sanitized, *options], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout == "0 failures\n"
    fault = subprocess.run([sanitized, "--fault"], capture_output=True, text=True, check=False)
    assert fault.returncode != 0
    assert "heap-buffer-overflow" in fault.stderr
