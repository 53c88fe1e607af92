"""Every kernel compiles for the oldest and the newest architecture, without spilling registers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = sorted((Path(__file__).resolve().parents[2] / "csrc" / "cuda").glob("*.cu"))
NVCC = shutil.which(os.environ.get("CUDACXX", "nvcc"))


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.stem)
def test_nothing_spills(source, architecture, tmp_path):
    flags = ["-std=c++17", f"-arch={architecture}", "-cubin", "-Xptxas=-v"]
    command = [NVCC, *flags, "-o", tmp_path / "kernel.cubin", source]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    functions = re.findall(r"Compiling entry function '(\w+)'", run.stderr)
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill .*, (\d+) bytes spill", run.stderr)
    used = re.findall(r"Used (\d+) registers", run.stderr)
    assert functions
    assert len(used) == len(functions) <= len(stacks)  # of functions that kernels call, too
    assert set(stacks) == {("0", "0", "0")}, f"stack frame, spill stores, spill loads:\n{run.stderr}"
    for function, registers in zip(functions, used, strict=True):
        assert int(registers) <= 128, function  # 512 threads of a block then fit
