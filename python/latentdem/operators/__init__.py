"""Forward operators with unknown parameters."""

from .blur import HQS, Blur

__all__ = ["HQS", "Blur"]
