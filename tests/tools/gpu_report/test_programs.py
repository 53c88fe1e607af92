"""The programs of the GPU report on the processor, as their steps run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import latentdem_ext as ext

ROOT = Path(__file__).resolve().parents[3]


def rows(place) -> list[dict]:
    return [json.loads(line) for line in place.results.read_text().splitlines()]


@pytest.mark.parametrize("step", ["ceilings", "comparisons", "times"])
def test_programs_run_with_the_arguments_of_their_steps(module, place, monkeypatch, step, described):
    """In this process, which has imported what they need; the slow rehearsal runs the other programs too."""
    plan = module("plan")

    def run(name, command, log, seconds, cwd, environment):
        assert command[1] == "-m"
        status = import_module(command[2]).main(command[3:])
        return module("steps").Outcome(name, "FAILED" if status else "passed")

    monkeypatch.setattr(plan, "run", run)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    (chosen,) = (one for one in plan.STEPS if one.name == step)
    outcome = chosen.do(step, place, 60)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert outcome.state == "passed"
    found = rows(place)
    assert len(found) >= 3
    module("report").write(place.folder, "A GPU", described, [outcome], place.results)
    report = (place.folder / "report.md").read_text()
    for kind in {row["kind"] for row in found} - {"comparison"}:  # of which failures are shown
        assert f"## {kind.capitalize()}" in report


def test_ceilings_are_measured_before_anything_is_built():
    program = "import sys, gpu_report.ceilings; sys.exit('latentdem_ext' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_three_operations_are_profiled(module):
    assert module("profiled").main(["--small"]) == 0


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 1, 1), (3, 1, 4), (5, 4, 7)])
def test_a_transposed_convolution_is_upsampling_and_convolving(module, channels, height, width):
    """Everywhere, also at the border, where the taps outside are zeros of the large image."""
    cases = module("cases")
    x, weight = (torch.randn(shape).double() for shape in ((2, channels, height, width), (6, channels, 3, 3)))
    case = cases.case("upsample_conv", x, weight, torch.randn(6).double())
    assert case.variants()[-1] == "conv_transpose2d"
    found, expected = case.run("conv_transpose2d"), case.precise()
    assert found.shape == (2, 6, 2 * height, 2 * width)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_operations_without_a_function_of_a_library_have_no_such_row(module):
    cases = module("cases")
    assert "conv_transpose2d" not in cases.Maker("cpu").norm(8, 4, torch.float32).variants()


def test_every_operation_is_compared_and_timed(module):
    # PyTorch's on a GPU.
    without_kernels = {"blur_adjoint", "l0_deconvolution", "gradient_lags", "kernel_from_lags"}
    without_kernels |= {"frustum_hits", "frustum_resample"}
    public = {name for name in module("cases").OPERATIONS if hasattr(ext, name)} - without_kernels
    compare, times = module("compare"), module("times")
    assert {c.operation for c in compare.cases("cpu", compare.IMAGES[:1], compare.MAPS[3:])} == public
    assert {c.operation for c in times.cases("cpu", times.SMALL)} == public


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_rows_of_a_case(module, monkeypatch):
    times = module("times")
    case = next(case for case in times.cases("cpu", times.SMALL) if case.operation == "renoise")
    clock = iter([2000.0, 500.0])
    monkeypatch.setattr(times, "device_time", lambda functions: {"device_us": next(clock), "quartiles_us": 1.0})
    plain, native = times.backends(case)
    assert (plain["backend"], plain["chosen"]) == ("reference", False)
    assert (native["backend"], native["chosen"]) == ("cpp", True)
    # Three latents and three numbers a sample are read, one latent is written.
    assert native["gb_per_s"] == pytest.approx((4 * 512 + 3 * 2) * 4 / 500e-6 / 1e9)


def test_inputs_rotate_through_more_than_a_cache(module, monkeypatch):
    times, given = module("times"), []
    case = module("cases").Maker("cpu").norm(64, 32, torch.float32)
    monkeypatch.setattr(times, "ROTATED_BYTES", 5 * case.bytes)
    monkeypatch.setattr(
        times,
        "device_time",
        lambda functions: given.append(functions) or {"device_us": 1.0, "quartiles_us": 0.0},
    )
    times.backends(case)
    addresses = {function.args[0].arguments[0].data_ptr() for function in given[0]}
    assert len(addresses) == 5


def test_wrong_results_fail(module, monkeypatch, tmp_path, capsys):
    cases = module("cases")
    maker = cases.Maker("cpu")
    case = next(maker.photographs(1, 1, 16, 16, 3))
    run = cases.Case.run
    off = lambda self, variant: run(self, variant) * (1 if variant == "reference" else 1.001)  # noqa: E731
    monkeypatch.setattr(cases.Case, "run", off)
    assert module("rows").for_each([case], module("compare").compare, "comparison", tmp_path / "rows") == 1
    found = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [row["passed"] for row in found] == [row["backend"] == "reference" for row in found]
    assert "rows, " in capsys.readouterr().out


def test_a_limit_is_twice_the_error_of_the_reference_where_that_has_more(module):
    cases = module("cases")
    x = torch.full((1, 4, 8, 8), 1e4) + torch.rand(1, 4, 8, 8)  # the variance is what rounding leaves of it
    case = cases.case("group_norm_silu", x, 2, torch.ones(4), torch.zeros(4))
    expected = case.precise()
    own = cases.error_of(case.run("reference"), expected)
    assert case.allowed(expected) == max(1e-5, 2 * own) > 1e-5
    assert cases.error_of(torch.tensor([torch.nan, 1.0]), torch.ones(2)) == float("inf")


def test_device_time_replays_one_graph_of_all_functions(module, monkeypatch):
    """With stand-ins for the parts of PyTorch that need a GPU: `replay` takes 2 ms."""
    clocks, log, streams = module("clocks"), [], []

    class Stream:
        def wait_stream(self, other):
            log.append("wait")

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = log.count("replay")

        def elapsed_time(self, other):
            return 2.0 * (other.at - self.at)

    class Graph:
        def replay(self):
            log.append("replay")

    class Context:
        def __init__(self, what, stream=None):
            # Warmed up and captured on one stream, with which prepared weights are kept.
            streams.append(stream or what)
            assert streams[0] is streams[-1]

        def __enter__(self):
            log.append("enter")

        def __exit__(self, *_):
            log.append("exit")

    for name, value in {
        "is_available": lambda: True,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": Context,
        "synchronize": lambda: log.append("synchronize"),
        "CUDAGraph": Graph,
        "graph": Context,
        "Event": Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    calls = []
    measured = clocks.device_time([lambda: calls.append(1), lambda: calls.append(2)])
    assert measured == {"device_us": 1000.0, "quartiles_us": 0.0}
    assert calls == [1, 2] * (clocks.WARMED_UP + 1)
    assert log.count("replay") == clocks.ROUNDS + 1
    assert clocks.host_time(lambda: None) < 1000


def test_lines_that_wait_for_the_device_are_counted(module, monkeypatch):
    import warnings

    monkeypatch.syspath_prepend(str(ROOT))
    whole_run, modes = module("whole_run"), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def function():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    ((place, count),) = whole_run.waits(function).items()
    assert place.startswith("tools/gpu_report/test_programs.py:")
    assert count == 3
    assert modes == ["warn", "default"]
