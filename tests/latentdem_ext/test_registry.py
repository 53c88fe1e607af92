"""The registration of every operation: what it names exists, is called alike and is tested."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import _backends, reference
from latentdem_ext._registry import OPERATIONS

STUBS = Path(ext.__file__).parent
# Public functions that are no operations: they choose or tell backends, or are made of operations.
OTHERS = {
    *("backends", "record_backends", "requested_backend", "use_backend"),
    *("accelerate_vae", "convolution", "tiled_decode", "kernel_to_otf"),
    *("hqs_m_step_is_one_launch", "masked_solves_end_on_device"),
}


def test_every_public_operation_is_registered():
    functions = {name for name in ext.__all__ if name[0].islower()}
    assert functions - OTHERS <= set(OPERATIONS)
    for operation in OPERATIONS.values():
        assert set(operation.backends) < set(ext.backends())
        assert (
            getattr(torch.ops.latentdem, operation.name).default._schema.arguments[0].name
            == operation.arguments[0]
        )


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_arguments_are_those_of_the_schema(name):
    schema = getattr(torch.ops.latentdem, name).default._schema
    assert OPERATIONS[name].arguments == [argument.name for argument in schema.arguments]
    definition = getattr(reference, name, None)
    if definition is not None:
        parameters = " ".join(inspect.signature(definition).parameters)
        parameters = parameters.replace("factors", "data_term filter")  # two tensors here
        assert parameters.split() == OPERATIONS[name].arguments


def test_every_operation_is_fuzzed():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    calls = " ".join(re.findall(r"fuzz\(ext\.\w+|\"operation\", \[.*\]", tests))
    fuzzed = set(re.findall(r"ext\.(\w+)", calls))
    functions = {name for name in ext.__all__ if name[0].islower()}
    assert fuzzed == functions - OTHERS | {"kernel_to_otf"}


def signatures_of_stub(name: str) -> dict[str, list[str]]:
    text = re.sub(r"#.*", "", (STUBS / f"{name}.pyi").read_text())
    return {
        function: re.findall(r"(\w+): ", arguments)
        for function, arguments in re.findall(r"def (\w+)\((.*?)\) -> ", text, re.DOTALL)
    }


def signatures_of_module(module: object) -> dict[str, list[str]]:
    documented = {name: str(getattr(module, name).__doc__) for name in dir(module) if name[0] != "_"}
    return {
        name: re.findall(r"(\w+): ", text.partition(" -> ")[0])
        for name, text in documented.items()
        if text.startswith(f"{name}(")
    }


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_stub_has_the_signatures_of_the_compiled_module(name):
    module = getattr(_backends, name)
    if module is None:
        pytest.skip("the module is not built")
    assert signatures_of_stub(f"_{name}") == signatures_of_module(module)
