"""The operations of latentdem: one definition each (`latentdem_ext.reference`), several implementations."""

from . import _build_check as _build_check  # raises where the package must not be imported
from ._backends import Backend, backends, record_backends, requested_backend, use_backend
from ._blur import blur, blur_adjoint, kernel_to_otf
from ._dps_step import dps_step
from ._fidelity import blur_fidelity, blur_proximal
from ._frustum import frustum_hits, frustum_resample
from ._group_norm_silu import group_norm_silu
from ._hqs import hqs_kernel_update, hqs_prepare
from ._hqs_m_step import hqs_m_step, hqs_m_step_is_one_launch
from ._kernel_lags import gradient_lags, kernel_from_lags
from ._l0_deconvolution import l0_deconvolution
from ._masked import masked_kernel_solve, masked_proximal, masked_solves_end_on_device
from ._project_kernel import project_kernel
from ._renoise import renoise
from ._upsample_conv import upsample_conv
from ._winograd import convolution
from .reference import Fidelity, HQSFactors
from .vae import AcceleratedVAE, accelerate_vae, tiled_decode

__all__ = [
    "AcceleratedVAE",
    "Backend",
    "Fidelity",
    "HQSFactors",
    "accelerate_vae",
    "backends",
    "blur",
    "blur_adjoint",
    "blur_fidelity",
    "blur_proximal",
    "convolution",
    "dps_step",
    "frustum_hits",
    "frustum_resample",
    "gradient_lags",
    "group_norm_silu",
    "hqs_kernel_update",
    "hqs_m_step",
    "hqs_m_step_is_one_launch",
    "hqs_prepare",
    "kernel_from_lags",
    "kernel_to_otf",
    "l0_deconvolution",
    "masked_kernel_solve",
    "masked_proximal",
    "masked_solves_end_on_device",
    "project_kernel",
    "record_backends",
    "renoise",
    "requested_backend",
    "tiled_decode",
    "upsample_conv",
    "use_backend",
]
