"""Image quality at the best sub-pixel shift, as benchmarks of blind deconvolution measure it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import UserError
from ..metrics import SSIM_WINDOW, best_alignment, psnr, ssim


@dataclass(frozen=True)
class AlignedScore:
    """Quality after moving the image by `shift` pixels (down, right); PSNR in dB."""

    psnr: float
    ssim: float
    shift: tuple[float, float]


def score_aligned(image: Tensor, reference: Tensor, radius: int = 5, border: int = 15) -> AlignedScore:
    """PSNR and SSIM at the shift of quarter pixels that maximises the PSNR.

    See `metrics.best_alignment`.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1], compared after clipping, in [0, 1].
        reference: image of the same shape.
        radius: largest whole-pixel shift in each direction.
        border: pixels left out at every edge, more than `radius`.

    Raises:
        UserError: the images are too small for the border, or of different shapes.
    """
    if image.shape[-3:] != reference.shape[-3:]:
        raise UserError(
            f"The images compared are {_size(image)} and {_size(reference)}; both must be the same."
        )
    height, width = reference.shape[-2:]
    if min(height, width) < 2 * border + SSIM_WINDOW:
        raise UserError(
            f"The image is {_size(reference)}; too little is left without a border of {border} pixels."
        )
    moved, inner, shift = best_alignment(image, reference, radius, border)
    return AlignedScore(psnr(moved, inner), ssim(moved, inner), shift)


def _size(image: Tensor) -> str:
    channels, height, width = image.shape[-3:]
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"
