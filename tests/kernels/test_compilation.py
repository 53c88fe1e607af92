"""The Triton kernels compiled to machine code for two generations of GPUs, without one being there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="the extra cuda is not installed")
compiler = pytest.importorskip("triton.backends.compiler", reason="this Triton has no compiler")

from latentdem_kernels import dps_step, group_norm_silu, renoise, upsample_conv  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

pytestmark = pytest.mark.skipif(
    not isinstance(dps_step.kernel, JITFunction), reason="TRITON_INTERPRET was set when Triton was imported"
)
SHARED_MEMORY = 99 * 1024  # of a block, on the smallest GPU (compute capability 8.6)
TYPES = {"half": "*fp16", "brain": "*bf16", "single": "*fp32"}
# Kernel, its arguments of the storage type, of other types than int32, and its constants.
STREAMING: dict[str, tuple[Any, str, dict[str, str], dict[str, Any]]] = {
    "dps_step": (
        dps_step.kernel,
        "z_t eps eps_uncond noise gradient z_prev z0",
        {"abar_t": "*fp64", "abar_prev": "*fp64", "step_size": "*fp64", "guidance": "fp32", "eta": "fp32"},
        {"BLOCK": dps_step.BLOCK},
    ),
    "ddim_step": (
        dps_step.kernel,
        "z_t eps z_prev z0",
        {"abar_t": "*fp32", "abar_prev": "*fp32", "guidance": "fp32", "eta": "fp32"},
        {"eps_uncond": None, "noise": None, "gradient": None, "step_size": None, "BLOCK": dps_step.BLOCK},
    ),
    "renoise": (
        renoise.kernel,
        "z_t z0 noise z_prev",
        {"abar_t": "*fp64", "abar_prev": "*fp64", "fresh": "*fp64"},
        {"BLOCK": renoise.BLOCK},
    ),
}
SUMS = dict.fromkeys(["means", "squares", "mean", "rstd", "sums", "moments", "constant", "slope"], "*fp32")
SUMS |= {"grad_weight": "*fp32", "grad_bias": "*fp32", "eps": "fp32"}
# A stride of 1 is a constant, as a launch makes it.
ROWS, PLANES = {"BLOCK_C": 128, "BLOCK_S": 16, "stride_c": 1}, {"BLOCK_C": 1, "BLOCK_S": 2048, "stride_s": 1}
WIDE = {"moments", "forward", "sums", "gradient"}  # read and write whole tensors
JOINT = {"BLOCK_P": 512, "BLOCK_W": 4}
for layout, tile in (("rows", ROWS), ("planes", PLANES)):
    for step, constants in (
        ("moments", tile),
        ("statistics", JOINT),
        ("forward", tile),
        ("sums", tile),
        ("correction", JOINT),
        ("gradient", tile),
    ):
        function = getattr(group_norm_silu, f"{step}_kernel")
        STREAMING[f"group_norm_{step}_{layout}"] = (function, "x y grad grad_x weight bias", SUMS, constants)


def cubin(
    tmp_path: Path, kernel: Any, arch: int, types: dict[str, str], constants: dict[str, Any], **options: int
) -> tuple[dict[str, int], int, str]:
    """Resources of the machine code, by name, the shared memory of a launch, and the code in PTX."""
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names
    }
    # As a launch finds them: addresses and sizes are multiples of 16.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or signature[name] == "i32"
    }
    try:
        source = triton.compiler.ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    except TypeError as error:
        pytest.skip(f"Triton {triton.__version__} describes kernels otherwise: {error}")
    target = compiler.GPUTarget("cuda", arch, 32)
    compiled = triton.compile(source, target=target, options=options)
    file = tmp_path / "kernel.cubin"
    file.write_bytes(compiled.asm["cubin"])
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    tool = str(bundled) if bundled.exists() else shutil.which("cuobjdump")
    if tool is None:
        pytest.skip("there is no cuobjdump to read machine code with")
    dump = subprocess.run([tool, "-res-usage", str(file)], capture_output=True, text=True, check=True).stdout
    (usage,) = re.findall(r"Function \S+:\s+(REG:.*)", dump)
    resources = {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", usage)}
    return resources, compiled.metadata.shared, compiled.asm["ptx"]


@pytest.fixture(params=[80, 90])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Compiles and checks what comes out; returns the PTX."""

    def compile_and_check(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: int) -> str:
        usage, shared, ptx = cubin(tmp_path, kernel, request.param, types, constants, **options)
        assert usage["STACK"] == usage["LOCAL"] == 0, f"registers are spilled: {usage}"
        assert usage["REG"] <= 255
        assert shared <= SHARED_MEMORY
        return ptx

    return compile_and_check


@pytest.mark.parametrize(
    "storage",
    ["half", pytest.param("brain", marks=pytest.mark.slow), pytest.param("single", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", STREAMING)
def test_streaming_kernel(build, name, storage):
    kernel, stored, types, constants = STREAMING[name]
    ptx = build(kernel, types | dict.fromkeys(stored.split(), TYPES[storage]), constants, num_warps=4)
    if "BLOCK" in constants or WIDE & set(name.split("_")):
        assert "ld.global.v4.b32" in ptx  # 16 bytes at once


@pytest.mark.parametrize(
    ("storage", "precision"),
    [
        ("half", "ieee"),
        ("single", "ieee"),
        pytest.param("brain", "ieee", marks=pytest.mark.slow),
        pytest.param("single", "tf32", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("channels", [128, pytest.param(3, marks=pytest.mark.slow)])
def test_upsample_conv(build, storage, precision, forward, channels):
    config = upsample_conv.configuration(4 if storage == "single" else 2, channels, channels)
    options = {key: config.pop(key) for key in ("num_warps", "num_stages")}
    constants = config | {"FORWARD": forward, "PRECISION": precision}
    # Channels last: the strides of 1 are constants.
    constants |= {"x_channel": 1, "y_channel": 1, "k_out" if forward else "k_in": 1}
    ptx = build(
        upsample_conv.kernel, dict.fromkeys(["x", "k", "bias", "y"], TYPES[storage]), constants, **options
    )
    if storage != "single" and channels == 128:
        assert ("wgmma" if ".target sm_90" in ptx else "mma.sync") in ptx  # matrix instructions
