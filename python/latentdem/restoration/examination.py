"""What a photograph says about itself: its range, and the pixels that take part in the restoration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..solver.frame import filled
from .data_range import DataRange, quantisation_step
from .outliers import blown_out_pixels, constant_lines, isolated_pixels, sharp_pixels
from .windows import by_rows, dilated

_SEEN, _UNSEEN = 0.5, 0.9  # share of a pixel's light in blown-out pixels: known up to, unknown from


@dataclass(frozen=True)
class Examination:
    """Photographs as they are restored.

    Attributes:
        y: (B, C, H, W) with the range of the data at [-1, 1], smooth where pixels do not count.
        mask: (1 or B, 1, H, W), 1 where pixels count; None for everywhere.
        original: (B, 1, H, W) bool, frames and other pixels that come back as they were; None for none.
        data_range: that of the data in the file.
        step: (B,) difference between two levels of the data, on the scale of `y`; None for 8 bits.
        clipped: (B, 1, H, W) bool, blown-out pixels; None for none.
    """

    y: Tensor
    mask: Tensor | None
    original: Tensor | None
    data_range: DataRange
    step: Tensor | None = None
    clipped: Tensor | None = None

    @classmethod
    def none(cls, y: Tensor, mask: Tensor | None = None) -> Examination:
        """The photographs as they are, with the mask that is given."""
        return cls(y, mask, None, DataRange.full(len(y)))

    @classmethod
    def of(cls, y: Tensor, shown: Tensor | None = None) -> Examination:
        """Finds the range and the pixels that no blur explains.

        Args:
            y: (B, C, H, W) photographs in [-1, 1].
            shown: (1 or B, 1, H, W), 0 for pixels that do not count in any case, such as transparent ones; they
                come back as they were.
        """
        known = torch.ones((), dtype=torch.bool) if shown is None else shown > 0
        known = known.expand(len(y), 1, *y.shape[2:])
        steps = torch.tensor([quantisation_step(sample) for sample in y])
        y = filled(y, known) if shown is not None else y
        isolated = torch.stack([isolated_pixels(sample) for sample in y])[:, None]
        data_range = DataRange.of(y, known & ~isolated)
        step = steps / data_range.scale
        stretched = data_range.stretched(y)
        clean = filled(stretched, ~isolated) if isolated.any() else stretched
        lines = torch.stack([constant_lines(sample) for sample in clean])[:, None]
        wrong = isolated | lines
        if lines.any():
            clean = filled(clean, ~lines)
        stamps, clipped = (
            torch.stack([find(sample) for sample in clean])[:, None] & ~lines
            for find in (sharp_pixels, blown_out_pixels)
        )
        wrong |= stamps | clipped
        original = lines | ~known
        # One pixel more beside a frame, which may be a mixture.
        beside = torch.stack([dilated(one[0], 3) for one in lines])[:, None] if lines.any() else lines
        mask = (known & ~(wrong | beside)).to(y)
        for i in range(len(mask)):
            if not mask[i].any():  # nothing to restore from
                mask[i], original[i] = 1, False
        if bool(mask.all()):
            return cls(stretched, None, None, data_range, step)
        if bool((mask == mask[:1]).all()):
            mask = mask[:1]
        smooth = filled(stretched, mask)
        some = [one if one.any() else None for one in (original, clipped)]
        return cls(smooth, mask, some[0], data_range, step, some[1])

    def restored(self, image: Tensor, photographs: Tensor, kernel: Tensor) -> Tensor:
        """The restored image (B, C, H, W) in the range of the file, its `original` pixels as they were.

        Where that range is [-1, 1] it is `image` itself, changed: large photographs are not copied.

        Blown-out pixels whose light went into blown-out pixels alone are at least as bright, or as dark, as
        they were: the restoration, for which they do not count, knows nothing of them.
        """
        image = self.data_range.restored(image)
        if self.clipped is not None:
            share = received(self.clipped, kernel)
            middle = (self.data_range.low + self.data_range.high) / 2
            for i, clipped in enumerate(self.clipped[:, 0]):
                own, seen = image[i][:, clipped], photographs[i][:, clipped].to(image)
                unknown = ((share[i, 0][clipped] - _SEEN) / (_UNSEEN - _SEEN)).clamp(0, 1)
                # All channels, or colours would appear where only some are clipped.
                bright = seen.amax(0) > middle[i].to(image)
                limit = torch.where(bright, own.maximum(seen), own.minimum(seen))
                image[i][:, clipped] = own + unknown * (limit - own)
        if self.original is not None:
            for one, before, original in zip(image, photographs, self.original[:, 0], strict=True):
                one[:, original] = before[:, original].to(image)
        return image


def received(region: Tensor, kernel: Tensor) -> Tensor:
    """Share (B, 1, H, W) of each pixel's light that a blur with kernels (B, 1, K, K) sends into a region."""
    size = kernel.shape[-1]
    before, after = size // 2, size - 1 - size // 2
    kernel = kernel.expand(len(region), -1, -1, -1)

    def band(rows: slice) -> Tensor:
        part = region[..., rows, :].to(kernel)
        if not part.any():
            return part
        padded = F.pad(part, (before, after, before, after), mode="replicate")
        return F.conv2d(padded.transpose(0, 1), kernel, groups=len(region)).transpose(0, 1)

    return by_rows(band, region.shape[-2], size)
