"""Definitions that PyTorch compiles, for operations whose kernels lost to them on a GPU."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import _backends, _compiled, reference
from latentdem_ext._registry import OPERATIONS, Implementation


class Compiler:
    """Takes the place of Inductor: counts what it compiles and runs it as it is, or fails."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []
        self.fails = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]):
        if self.fails:
            raise RuntimeError("no C compiler\nat all")
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture
def compiler(monkeypatch):
    """The backend is available and takes tensors in CPU memory."""
    compiler = Compiler()
    monkeypatch.setitem(_backends._STATES, "compiled", lambda: ext.Backend(not compiler.fails, ""))
    monkeypatch.setattr(_backends, "_cannot_compile", "")
    monkeypatch.setattr(_compiled, "refusal", lambda *_: "")
    for operation in OPERATIONS.values():
        if "compiled" in operation.backends:
            run = operation.backends["compiled"].run
            own = {name: backend for name, backend in operation.backends.items() if name != "compiled"}
            first = {"compiled": Implementation(run, lambda *_: "")}
            monkeypatch.setattr(operation, "backends", first | own)
            for program in (run, getattr(sys.modules[run.__module__], "_prepare_on_grid", None)):
                if isinstance(program, _compiled.Program):
                    monkeypatch.setattr(program, "_compiler", compiler)
                    monkeypatch.setattr(program, "_compiled", None)
    torch.compiler.reset()
    return compiler


def feature_map(channels: int = 8) -> tuple[Tensor, int, Tensor, Tensor]:
    return torch.randn(2, channels, 6, 5), 4, torch.randn(channels), torch.randn(channels)


def test_the_table_is_the_order_of_the_registrations():
    for operation in OPERATIONS.values():
        backends = [name for name in operation.backends if name != "cpp"]  # for tensors in CPU memory
        assert (backends[:1] == ["compiled"]) == (operation.recorded_as in _compiled.FASTER_COMPILED)
        assert "compiled" not in backends[1:]


def test_processors_and_float64_do_not_use_it():
    x = torch.zeros(1, 2)
    assert _compiled.refusal("x", x) == "x is on cpu, not on a CUDA device"
    with torch._subclasses.fake_tensor.FakeTensorMode():
        assert not _compiled.refusal("x", torch.zeros(1, device="cuda", dtype=torch.half))
        assert "x is float64, not" in _compiled.refusal("x", torch.zeros(1, device="cuda", dtype=torch.float64))
    with ext.record_backends() as record:
        ext.group_norm_silu(*feature_map())
    assert record["group_norm_silu"] != ["compiled"]


def test_group_norm_is_that_of_the_definition(compiler):
    x, *rest = feature_map()
    rest = [value.requires_grad_() if isinstance(value, Tensor) else value for value in rest]
    x.requires_grad_()
    with ext.record_backends() as record:
        y = ext.group_norm_silu(x, *rest)
        gradients = torch.autograd.grad(y.square().sum(), (x, *rest[1:]))
    assert record == {"group_norm_silu": ["compiled"]}
    expected = reference.group_norm_silu(x, *rest)
    torch.testing.assert_close(y, expected)
    expected = torch.autograd.grad(expected.square().sum(), (x, *rest[1:]))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)
    last = x.detach().contiguous(memory_format=torch.channels_last)
    assert ext.group_norm_silu(last, *rest).is_contiguous(memory_format=torch.channels_last)


def test_fourier_operations_are_those_of_their_definitions(compiler, problem):
    x, kernel, y = problem(2, 3, (20, 23, 7), torch.float32)
    weight = torch.ones(2)
    with ext.record_backends() as record:
        actual = (*ext.blur_fidelity(x, kernel, y), *ext.hqs_prepare(x[:, None], y, weight, 7))
    assert record == {"blur_fidelity": ["compiled"], "hqs_prepare": ["compiled"]}
    expected = (*reference.blur_fidelity(x, kernel, y), *reference.hqs_prepare(x[:, None], y, weight, 7))
    torch.testing.assert_close(actual, expected)
    (gradient,) = torch.autograd.grad(ext.blur_fidelity(x.requires_grad_(), kernel, y).norm2.sum(), x)
    torch.testing.assert_close(gradient, expected[1])


def test_one_program_serves_other_sizes(compiler, problem):
    def prepare(height: int, width: int, size: int) -> None:
        x, _, y = problem(2, 3, (height, width, size), torch.float32)
        ext.hqs_prepare(x[:, None], y, torch.ones(2), size)

    prepare(40, 36, 7)
    prepare(48, 44, 15)
    count = len(compiler.graphs)
    prepare(50, 60, 9)
    prepare(64, 52, 21)
    assert len(compiler.graphs) == count


def test_without_a_compiler_the_next_backend_computes(compiler):
    compiler.fails = True
    x, *rest = feature_map()
    compiler_state = iter([True])
    _backends._STATES["compiled"] = lambda: ext.Backend(next(compiler_state, False), "")
    with (
        ext.record_backends() as record,
        pytest.warns(UserWarning, match=r"uses its own kernels: PyTorch cannot compile \(.*no C compiler"),
    ):
        y = ext.group_norm_silu(x, *rest)
    assert "at all" not in _backends._cannot_compile
    assert len(record["group_norm_silu"]) == 2
    torch.testing.assert_close(y, reference.group_norm_silu(x, *rest))


def test_a_caller_that_compiles_gets_the_definition(compiler):
    graphs = Compiler()
    function = torch.compile(lambda *values: ext.group_norm_silu(*values) + 1, backend=graphs, fullgraph=True)
    values = feature_map()
    torch.testing.assert_close(function(*values), reference.group_norm_silu(*values) + 1)
    (graph,) = graphs.graphs
    assert not any("latentdem" in str(node.target) for node in graph.graph.nodes)


def test_state_says_what_is_missing(monkeypatch):
    def state() -> ext.Backend:
        _backends._compiler_state.cache_clear()
        return _backends._compiled_state()

    monkeypatch.setattr(_backends, "_cannot_compile", "")
    monkeypatch.delenv("TORCH_COMPILE_DISABLE", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(_backends, "without_cuda_device", lambda: "there is no device")
    assert state() == ext.Backend(False, "there is no device")
    monkeypatch.setattr(_backends, "without_cuda_device", lambda: "")
    monkeypatch.setattr(_backends, "_triton_state", lambda: ext.Backend(False, "it is gone", built=False))
    assert state() == ext.Backend(False, "it needs Triton: it is gone")
    monkeypatch.setattr(_backends, "_triton_state", lambda: ext.Backend(True, ""))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert state().reason == "it needs a C compiler (gcc or clang), which was not found"
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert state() == ext.Backend(True, "")
    _backends.give_up_compiling("it failed")
    assert state() == ext.Backend(False, "it failed")
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert state() == ext.Backend(False, "TORCH_COMPILE_DISABLE=1 is set")
    _backends._compiler_state.cache_clear()


@pytest.mark.gpu
def test_compiled_results_on_a_gpu(problem):
    double = [value.cuda() for value in problem(2, 3, (65, 70, 33))]
    x, scale = torch.randn(2, 32, 33, 31, device="cuda"), torch.randn(32, device="cuda")

    def everything(x64: Tensor, kernel: Tensor, y: Tensor, feature: Tensor) -> tuple[Tensor, ...]:
        ones = torch.ones(2, device="cuda")
        return (
            *ext.blur_fidelity(x64, kernel, y),
            *ext.hqs_prepare(x64[:, None], y, ones, kernel.shape[-1]),
            ext.group_norm_silu(feature, 8, scale.to(feature), scale.to(feature)),
        )

    single = [value.float() for value in double]
    with ext.record_backends() as record:
        actual = everything(*single, x)
    assert set(record) == set(_compiled.FASTER_COMPILED)
    assert all(backends == ["compiled"] for backends in record.values())
    with ext.use_backend("reference"):
        expected, limit = everything(*double, x.double()), everything(*single, x)
    for one, exact, other in zip(actual, expected, limit, strict=True):
        allowed = max(1e-5, 2 * float((other - exact).norm() / exact.norm()))
        assert float((one - exact).norm()) <= allowed * float(exact.norm())
