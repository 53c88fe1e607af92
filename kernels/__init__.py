"""Triton kernels of the operations, one operation per file."""
