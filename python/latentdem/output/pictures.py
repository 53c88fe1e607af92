"""Restored images in the forms that callers want, and as notebooks show them."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..io.files import atomic_path
from ..io.images import ImageFile, to_integers, write_image
from ..io.inputs import ImageForm, Source

_SHOWN = 480  # pixels; longer side of a picture in a notebook
_KERNEL_SHOWN = 160


class Pictures:
    """What the results of all restorations have in common: their images.

    Attributes:
        tensor: (B, C, H, W) float32 in [-1, 1], on the CPU, without transparency.
        source: what was given; None for a tensor in [-1, 1].
    """

    tensor: Tensor
    source: Source | None

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def image(self) -> ImageForm:
        """The restored image in the form, type and range of the one that was given, with its transparency.

        That is an array for an array, a tensor for a tensor, a list for a list, and a PIL image for one, for a
        path and for bytes. PIL images have 16 bits only if they are grey; `numpy` and `save` keep 16 bits.
        `pil()`, `numpy()` and `tensor` have one type each, whatever was given.
        """
        return self.tensor if self.source is None else self.source.back(self.tensor)

    def file(self, index: int = 0) -> ImageFile:
        """What a file of image `index` keeps of the one that was given: depth, transparency, metadata."""
        return (
            ImageFile(None, self.tensor[index : index + 1]) if self.source is None else self.source.file(index)
        )

    def pil(self, index: int = 0) -> Image.Image:
        """Image `index` as a PIL image with the transparency and metadata of the one that was given."""
        return self.file(index).back(self.tensor[index][None])

    def numpy(self, index: int = 0) -> np.ndarray:
        """Image `index` as float32 (H, W) or (H, W, C) in [0, 1], the last of an even C being opacity.

        Values are not rounded, and clipped to the range.
        """
        values = ((self.tensor[index] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
        file = self.file(index)
        if file.alpha is not None:
            top = np.iinfo(file.alpha.dtype).max
            alpha = file.with_alpha(self.tensor[index][None], 8 * file.alpha.itemsize)[..., -1:] / np.float32(
                top
            )
            values = np.concatenate([values, alpha], axis=-1)
        return np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values)

    def save(self, path: str | os.PathLike[str], index: int = 0) -> Path:
        """Writes image `index` with the depth, transparency and metadata of the one that was given.

        Args:
            path: file, whose suffix names the format; it is overwritten if it exists.
            index: number of the image in its batch.

        Returns:
            The path.

        Raises:
            UserError: the suffix is unknown, values are not finite, or the file cannot be written.
        """
        write_image(Path(path), self.tensor[index][None], like=self.file(index))
        return Path(path)

    def __repr__(self) -> str:
        count, channels, height, width = self.tensor.shape
        kind = "grey" if channels == 1 else "RGB"
        images = "1 image" if count == 1 else f"{count} images"
        return f"<{type(self).__name__}: {images} of {width} x {height} pixels, {kind}; {self._summary()}>"

    def _summary(self) -> str:
        """What `repr` says besides the images."""
        raise NotImplementedError

    def _shown(self) -> list[tuple[str, Image.Image]]:
        """Titles and small pictures of what a notebook shows of the first image."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        style = "display:inline-block;margin:0 1em 0 0;vertical-align:top"
        cells = ""
        for title, picture in self._shown():
            data = base64.b64encode(_png(picture)).decode()
            cells += f'<figure style="{style}"><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            cells += f"<figcaption>{escape(title)}</figcaption></figure>"
        return f"<div>{cells}<p><small>{escape(repr(self)[1:-1])}</small></p></div>"

    def _repr_png_(self) -> bytes:
        pictures = [picture for _, picture in self._shown()]
        gap = 8
        width = sum(picture.width + gap for picture in pictures) - gap
        sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
        left = 0
        for picture in pictures:
            sheet.paste(picture, (left, 0))
            left += picture.width + gap
        return _png(sheet)


def thumbnail(image: Tensor) -> Image.Image:
    """The first of (B, C, H, W) images in [-1, 1], reduced for a notebook."""
    picture = Image.fromarray(to_integers(image[:1].expand(-1, 3, -1, -1), 8))
    picture.thumbnail((_SHOWN, _SHOWN))
    return picture


def kernel_thumbnail(kernel: Tensor) -> Image.Image:
    """The first of (B, 1, K, K) kernels, scaled to its peak and enlarged for a notebook."""
    levels = (255 * kernel[0, 0] / kernel[0, 0].max().clamp_min(1e-12)).round().byte().numpy()
    factor = max(1, _KERNEL_SHOWN // len(levels))
    return Image.fromarray(levels.repeat(factor, 0).repeat(factor, 1)).convert("RGB")


def uncertainty_levels(uncertainty: Tensor) -> tuple[np.ndarray, float]:
    """The first of (B, 1, H, W) maps of standard deviations as levels (H, W) in [0, 1], and what 1 stands for.

    That is the deviation which one pixel in a hundred exceeds, so that a few do not leave the rest dark.
    """
    values = uncertainty[0, 0].detach().cpu().float().numpy()
    top = max(float(np.percentile(values, 99)), 1e-6)
    return (values / top).clip(0, 1), top


def write_uncertainty(stem: str | os.PathLike[str], uncertainty: Tensor) -> tuple[Path, Path]:
    """Writes standard deviations as `stem`.npy (float32, H x W) and as `stem`.png, see `uncertainty_levels`.

    Args:
        stem: path without suffix.
        uncertainty: (1, 1, H, W).

    Returns:
        The two paths, the array first.

    Raises:
        UserError: a file cannot be written.
    """
    stem = Path(stem)
    array_path, picture_path = (stem.with_name(stem.name + suffix) for suffix in (".npy", ".png"))
    with atomic_path(array_path) as temporary_array, atomic_path(picture_path) as temporary_picture:
        np.save(temporary_array, uncertainty[0, 0].detach().cpu().float().numpy())
        Image.fromarray(_as_bytes(uncertainty_levels(uncertainty)[0])).save(temporary_picture)
    return array_path, picture_path


def uncertainty_thumbnail(uncertainty: Tensor) -> tuple[str, Image.Image]:
    """A title, and the first of (B, 1, H, W) maps of standard deviations reduced for a notebook."""
    levels, top = uncertainty_levels(uncertainty)
    picture = Image.fromarray(_as_bytes(levels)).convert("RGB")
    picture.thumbnail((_SHOWN, _SHOWN))
    return uncertainty_title(top), picture


def uncertainty_title(top: float) -> str:
    """What stands above a map of standard deviations whose white is `top`."""
    return f"uncertainty, white is {top:.2g}"


def _as_bytes(levels: np.ndarray) -> np.ndarray:
    return np.rint(255 * levels).astype(np.uint8)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
