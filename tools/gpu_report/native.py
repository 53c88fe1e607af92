"""Builds the tests of the CUDA kernels that need no PyTorch, for the tools of compute-sanitizer.

python -m gpu_report.native ARCHITECTURE program
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cuda"
TESTS = ROOT / "tests" / "native" / "sanitize.cpp"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles the sources side by side and links them; returns 0 where all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", help="such as sm_90")
    parser.add_argument("program", type=Path)
    options = parser.parse_args(arguments)
    nvcc = [shutil.which("nvcc") or "nvcc", f"-arch={options.architecture}"]
    sources = [*sorted(KERNELS.glob("*.cu")), TESTS]
    objects = [str(options.program.with_name(f"{source.name}.o")) for source in sources]
    compiling = [*nvcc, "-std=c++17", "-O2", "-lineinfo", f"-I{KERNELS}", "-c"]
    commands = [[*compiling, str(source), "-o", name] for source, name in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor() as pool:
        statuses = list(pool.map(_run, commands))
    return 1 if any(statuses) else _run([*nvcc, *objects, "-o", str(options.program)])


def _run(command: Sequence[str]) -> int:
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(run.stdout, end="", flush=True)
    if run.returncode:
        print(f"{' '.join(command)}: exit status {run.returncode}", file=sys.stderr)
    return run.returncode


if __name__ == "__main__":
    raise SystemExit(main())
