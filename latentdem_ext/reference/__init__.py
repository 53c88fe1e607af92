"""What each operation is, in plain PyTorch: the definition every other implementation is compared with.

Notation: x image (B, C, H, W), y measurement of the same shape, k kernel (B, 1, K, K) with its origin at index
K // 2, F the unnormalised two-dimensional DFT over the image grid H x W, conj the complex conjugate. Blur is
true convolution, circular on that grid. Nothing mixes the samples of a batch. Floating-point type: float32 or
float64 for what uses F, any for the rest. Arguments are taken as correct; the functions of the same names in
`latentdem_ext` check them.
"""

from .common import arithmetic, per_sample
from .fourier import (
    Fidelity,
    HQSFactors,
    blur,
    blur_adjoint,
    blur_fidelity,
    blur_kernel_gradient,
    blur_proximal,
    fast_length,
    hqs_kernel_update,
    hqs_prepare,
    kernel_to_otf,
    padded_side,
    project_kernel,
)
from .network import group_norm_silu, upsample_conv
from .sampling import ddim_scales, dps_step, renoise

__all__ = [
    "Fidelity",
    "HQSFactors",
    "arithmetic",
    "blur",
    "blur_adjoint",
    "blur_fidelity",
    "blur_kernel_gradient",
    "blur_proximal",
    "ddim_scales",
    "dps_step",
    "fast_length",
    "group_norm_silu",
    "hqs_kernel_update",
    "hqs_prepare",
    "kernel_to_otf",
    "padded_side",
    "per_sample",
    "project_kernel",
    "renoise",
    "upsample_conv",
]
