"""Forward operators with unknown parameters."""

from .base import Operator
from .blur import HQS, Blur
from .burst import BurstBlur
from .families import AntiAliasing, DiskKernels, GaussianKernels, KernelFamily, RoundGaussianKernels
from .linear_light import LinearLightBlur
from .optical import CameraResponse, PhaseRetrieval, VaryingBlur
from .parameter_priors import Denoised, Gaussian, ParameterPrior, Penalty, Range, Simplex, Smooth, Sparse
from .parametric import Composition, Function, Parameter, Parametric
from .pixelwise import Denoising, Gamma, Inpainting, Saturation
from .shared import SharedBlur
from .strided import StridedBlur
from .tone_curve import ToneCurve

__all__ = [
    "HQS",
    "AntiAliasing",
    "Blur",
    "BurstBlur",
    "CameraResponse",
    "Composition",
    "Denoised",
    "Denoising",
    "DiskKernels",
    "Function",
    "Gamma",
    "Gaussian",
    "GaussianKernels",
    "Inpainting",
    "KernelFamily",
    "LinearLightBlur",
    "Operator",
    "Parameter",
    "ParameterPrior",
    "Parametric",
    "Penalty",
    "PhaseRetrieval",
    "Range",
    "RoundGaussianKernels",
    "Saturation",
    "SharedBlur",
    "Simplex",
    "Smooth",
    "Sparse",
    "StridedBlur",
    "ToneCurve",
    "VaryingBlur",
]
