"""The tests of the operations, run on the Triton kernels by Triton's interpreter on the CPU.

In processes of their own, because Triton decides once, when it is imported, whether it interprets.
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
KERNELS = {path.stem for path in (TESTS.parent / "kernels").glob("[!_]*.py")}
# Two parts that take equally long, for two workers.
PARTS = [{"group_norm_silu"}, KERNELS - {"group_norm_silu"}]


@pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")
@pytest.mark.parametrize("kernels", PARTS, ids=["group_norm_silu", "others"])
def test_operations_under_the_interpreter(kernels, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    tests = [str(TESTS / "latentdem_ext" / f"test_{kernel}.py") for kernel in sorted(kernels)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "triton", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,  # the root holds a folder latentdem_ext, which may not be built
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) > 10 * len(kernels), run.stdout
