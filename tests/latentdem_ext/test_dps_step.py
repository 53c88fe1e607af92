from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference
from latentdem_ext._registry import OPERATIONS

from .fuzzing import fuzz

needs_cpp = pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
# Shapes on both sides of a block (1024 items) and of a thread's share (65536 items), and odd ones.
SHAPES = [(1, 4, 8, 8), (3, 3, 7, 5), (2, 4, 33, 31), (3, 4, 150, 150), (2,), (0, 4, 8, 8)]
LATENTS = ("z_t", "eps", "eps_uncond", "noise", "gradient")
NUMBERS = ("abar_t", "abar_prev", "step_size")


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, **changes: Any) -> dict[str, Any]:
    """Every argument of dps_step, random; those changed to None are left out."""
    batch = shape[0]
    actual: dict[str, Any] = {name: torch.randn(shape, dtype=dtype) for name in LATENTS}
    actual["abar_t"] = torch.rand(batch, dtype=torch.float64) * 0.9 + 0.05
    actual["abar_prev"] = actual["abar_t"] + (1 - actual["abar_t"]) * torch.rand(batch, dtype=torch.float64)
    actual |= {"step_size": torch.rand(batch, dtype=torch.float64), "guidance": 7.5, "eta": 0.7} | changes
    return {name: value for name, value in actual.items() if value is not None}


PLAIN = {"eps_uncond": None, "guidance": None, "noise": None, "eta": None, "gradient": None, "step_size": None}
VARIANTS = {
    "ddim": PLAIN,
    "guided": PLAIN | {"eps_uncond": ..., "guidance": 3.0},
    "ancestral": PLAIN | {"noise": ..., "eta": 1.0},
    "gradient": PLAIN | {"gradient": ..., "step_size": ...},
    "everything": {},
}


def variant(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    return arguments(shape, dtype, **{key: value for key, value in VARIANTS[name].items() if value is not ...})


def literal(arguments: dict[str, Any], sample: int) -> tuple[Tensor, Tensor]:
    """Algorithm 1 and DDIM Eq. 12 and 16 for one sample, the scalars as Python numbers."""
    pick = {name: value[sample] if isinstance(value, Tensor) else value for name, value in arguments.items()}
    now, prev = pick["abar_t"].item(), pick["abar_prev"].item()
    noise = pick["eps"]
    if "eps_uncond" in pick:
        noise = (1 - pick["guidance"]) * pick["eps_uncond"] + pick["guidance"] * noise
    z0 = (pick["z_t"] - math.sqrt(1 - now) * noise) / math.sqrt(now)
    spread = pick.get("eta", 0.0) * math.sqrt((1 - prev) / (1 - now)) * math.sqrt(1 - now / prev)
    z_prev = math.sqrt(prev) * z0 + math.sqrt(1 - prev - spread**2) * noise
    if "noise" in pick:
        z_prev = z_prev + spread * pick["noise"]
    if "gradient" in pick:
        z_prev = z_prev - pick["step_size"].item() * pick["gradient"]
    return z_prev, z0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_step_is_the_literal_formula_of_each_sample(shape, name):
    given = variant(name, shape)
    actual = ext.dps_step(**given)
    for output in actual:
        assert output.shape == shape
    for sample in range(shape[0]):
        for output, expected in zip(actual, literal(given, sample), strict=True):
            torch.testing.assert_close(output[sample], expected)


def placed(given: dict[str, Any], device: str) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in given.items()}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_native_step_equals_the_reference(native, shape, name):
    if native.interpreted and math.prod(shape) > 100_000:
        pytest.skip("too large for the interpreter")
    given = variant(name, shape, torch.float32)
    actual = ext.dps_step(**placed(given, native.device))
    double = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    for value, expected in zip(actual, reference.dps_step(**double), strict=True):
        assert value.is_contiguous()
        # Measured: 2.5e-7 of the largest value.
        scale = float(expected.abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(value.cpu().double(), expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_native_step_of_half_precision_errs_at_most_twice_as_much_as_pytorch(
    native, relative_error, dtype, name
):
    if native.name == "cpp":
        pytest.skip("the C++ step does not take half precision")
    given = variant(name, (7, 3, 11, 5), dtype)
    exact = reference.dps_step(**{k: v.float() if isinstance(v, Tensor) else v for k, v in given.items()})
    rounded = reference.dps_step(**given)
    # Triton's interpreter cuts bfloat16 off instead of rounding.
    factor = 2.5 if native.interpreted and dtype == torch.bfloat16 else 2.0
    for value, true, plain in zip(ext.dps_step(**placed(given, native.device)), exact, rounded, strict=True):
        assert value.dtype == dtype
        assert relative_error(value, true) <= factor * relative_error(plain, true)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_native_step_of_extreme_values(native, relative_error, scale):
    """Almost no noise, almost nothing but noise, and no step at all."""
    given = variant("everything", (4, 3, 5, 7), torch.float32)
    given |= {key: given[key] * scale for key in LATENTS}
    given["abar_t"] = torch.tensor([1e-4, 0.5, 1 - 1e-9, 0.7], dtype=torch.float64)
    given["abar_prev"] = torch.tensor([2e-4, 1.0, 1 - 1e-10, 0.7], dtype=torch.float64)
    actual = ext.dps_step(**placed(given, native.device))
    expected = reference.dps_step(**{k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()})
    for value, true in zip(actual, expected, strict=True):
        assert relative_error(value, true) < 1e-5


@needs_cpp
def test_native_step_does_not_depend_on_the_number_of_threads():
    given = variant("everything", (3, 4, 150, 150), torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(ext.dps_step(**given))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for output, expected in zip(result, results[0], strict=True):
            assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layout_of_the_arguments_does_not_matter(dtype):
    given = variant("everything", (2, 4, 10, 12), dtype)
    expected = ext.dps_step(**given)
    strided = {k: given[k].to(memory_format=torch.channels_last) for k in ("z_t", "noise")}
    strided |= {k: given[k].mT.contiguous().mT for k in ("eps", "gradient")}
    strided |= {k: given[k].repeat_interleave(2)[::2].float() for k in NUMBERS}
    for output, contiguous in zip(ext.dps_step(**given | strided), expected, strict=True):
        torch.testing.assert_close(output, contiguous, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_half_precision_only_rounds_the_result(dtype, precision):
    given = variant("everything", (3, 4, 16, 16), dtype)
    actual = ext.dps_step(**given)
    double = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    for output, expected in zip(actual, reference.dps_step(**double), strict=True):
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), expected, rtol=1.01 * precision, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients(name):
    given = variant(name, (2, 1, 2, 3))
    latents = [key for key in LATENTS if key in given]
    for key in latents:
        given[key].requires_grad_()

    def step(*values: Tensor) -> tuple[Tensor, Tensor]:
        return ext.dps_step(**given | dict(zip(latents, values, strict=True)))

    assert torch.autograd.gradcheck(step, [given[key] for key in latents])


@pytest.mark.parametrize(
    ("dtype", "requires_grad"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]
)
def test_registration(dtype, requires_grad):
    given = variant("everything", (2, 3, 4, 5), dtype)
    for key in LATENTS:
        given[key].requires_grad_(requires_grad)
    order = OPERATIONS["dps_step"].arguments
    torch.library.opcheck(torch.ops.latentdem.dps_step.default, tuple(given[key] for key in order))


@pytest.mark.slow
def test_compiles_as_one_graph():
    given = variant("everything", (2, 3, 4, 5), torch.float32)

    def step(z_t: Tensor) -> Tensor:
        z_prev, z0 = ext.dps_step(**given | {"z_t": 2 * z_t})
        return z_prev + z0

    compiled = torch.compile(step, fullgraph=True)
    torch.testing.assert_close(compiled(given["z_t"]), step(given["z_t"]))


Z = torch.zeros(2, 3, 4, 4)
BAD = [
    ({"z_t": Z.int()}, TypeError, "z_t must be of dtype float16 or .* not int32"),
    ({"z_t": torch.tensor(0.0)}, ValueError, "z_t must have a batch dimension"),
    ({"eps": Z[:1]}, ValueError, r"eps must have shape \(2, 3, 4, 4\) to go with z_t"),
    ({"eps": Z.double()}, TypeError, "eps must be of dtype float32, not float64"),
    ({"eps_uncond": Z[..., :2]}, ValueError, "eps_uncond must have shape"),
    ({"noise": Z.to("meta")}, ValueError, "noise is on meta, but z_t is on cpu"),
    ({"abar_t": 0.5}, TypeError, "abar_t must be a tensor, not float"),
    ({"abar_prev": torch.ones(3)}, ValueError, r"abar_prev must have shape \(2,\)"),
    ({"abar_t": torch.full((2,), 0.5, requires_grad=True)}, ValueError, "abar_t requires a gradient"),
    ({"gradient": Z}, ValueError, "gradient and step_size go together"),
    ({"step_size": torch.ones(2)}, ValueError, "gradient and step_size go together"),
    ({"guidance": 7.5}, ValueError, "guidance is 7.5, but without eps_uncond"),
    ({"eta": 0.5}, ValueError, "noise must be given for eta = 0.5"),
    ({"eta": "1"}, TypeError, "eta must be a number, not str"),
    ({"guidance": None}, TypeError, "guidance must be a number, not NoneType"),
    ({"eta": -1.0}, ValueError, "eta must be between 0 and 1, not -1.0"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_arguments_are_named(changes, error, message):
    given = {"z_t": Z, "eps": Z, "abar_t": torch.full((2,), 0.5), "abar_prev": torch.full((2,), 0.6)}
    with pytest.raises(error, match=message):
        ext.dps_step(**given | changes)


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    def valid(batch: int) -> dict[str, Any]:
        latents = dict(zip(LATENTS, torch.rand(5, batch, 2, 3, 4), strict=True))
        abar_t, step_size = 0.05 + 0.9 * torch.rand(2, batch)
        numbers = {"abar_t": abar_t, "abar_prev": 0.95 + 0.04 * torch.rand(batch), "step_size": step_size}
        return latents | numbers | {"guidance": 2.0, "eta": 0.5}

    fuzz(ext.dps_step, valid)
