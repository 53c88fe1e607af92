"""Images, kernels and JSON on disk."""
