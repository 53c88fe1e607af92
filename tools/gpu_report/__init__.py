"""Builds, tests and measures latentdem on a machine with an NVIDIA GPU, in one command, without a network.

    python -m tools.gpu_report [--out benchmarks/results] [--minutes 20]

It needs PyTorch with CUDA, Triton, nvcc, CMake, Ninja, a C++ compiler, pybind11, setuptools and pytest, and
latentdem need not be installed: a copy is built into a temporary folder. compute-sanitizer, pytest-benchmark,
matplotlib and diffusers are used where they are installed. Every step is tried, even after one that failed. The
folder benchmarks/results/<device>/ then holds report.md, measurements.csv, environment.json and the output of
every step in logs/; the exit status is 0 only where nothing failed.
"""
