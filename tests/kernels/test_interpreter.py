"""The tests of the operations, run on the Triton kernels by Triton's interpreter on the CPU.

In a process of its own: Triton decides when it is imported whether it interprets, and for good.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
OPERATIONS = ["dps_step", "group_norm_silu", "upsample_conv", "triton_ops"]


@pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")
def test_operations_under_the_interpreter():
    files = [str(TESTS / "latentdem_ext" / f"test_{name}.py") for name in OPERATIONS]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "triton", "-p", "no:cacheprovider", *files],
        cwd=TESTS.parent,
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) > 50, run.stdout
