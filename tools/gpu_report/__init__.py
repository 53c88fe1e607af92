"""Builds, tests and measures latentdem on a machine with an NVIDIA GPU, in one command, without a network.

    python -m tools.gpu_report [--out benchmarks/results] [--minutes 8] [--only STEP ...] [--skip STEP ...]

It needs PyTorch with CUDA, Triton, nvcc, CMake, Ninja, a C++ compiler, pybind11, setuptools and pytest, and
latentdem need not be installed: a copy is built into a temporary folder, for the architecture of this GPU alone
(`--skip build` measures the installed one). compute-sanitizer, ncu and diffusers are used where they are there.

The steps run in the order of `plan.STEPS`, each with a limit of its own, and a step that fails stops no other.
The folder benchmarks/results/<device>/ holds report.md, results.jsonl (one JSON object a line),
environment.json and log.txt, in place of those of an earlier run. All of them are up to date after every step,
and results.jsonl after every row, so whatever ends the program, what was measured is there. The exit status is
0 only where nothing failed.

`--rehearse` runs the same steps on the processor with small arrays and without a build, to find mistakes before
time on a GPU is spent; its figures mean nothing.
"""
