"""Random crops for training from a folder of photographs, which are kept in memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def find_photographs(folder: Path) -> list[Path]:
    """All pictures below a folder."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"No photographs found below {folder}: give a folder of JPEG or PNG files.")
    return paths


class Photographs:
    """All images below `folder` as uint8 (3, H, W) tensors; `batch` draws augmented crops in [-1, 1]."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        paths = find_photographs(folder)
        self.images = [self._load(p) for p in tqdm(paths, desc="reading photographs", leave=False)]
        self.random = random.Random(seed)

    @staticmethod
    def _load(path: Path) -> Tensor:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def _scale(self) -> float:
        """Photograph pixels per crop pixel: half the time 1, else mostly larger and rarely smaller."""
        draw = self.random.random()
        if draw < 0.5:
            return 1.0
        return self.random.uniform(1.0, 2.0) if draw < 0.9 else self.random.uniform(0.67, 1.0)

    def _crop(self, size: int) -> Tensor:
        image = self.random.choice(self.images)
        height, width = image.shape[1:]
        source = min(round(size * self._scale()), height, width)
        top = self.random.randint(0, height - source)
        left = self.random.randint(0, width - source)
        crop = image[:, top : top + source, left : left + source].float()
        if source != size:
            crop = F.interpolate(crop[None], (size, size), mode="bicubic", antialias=True)[0]
        if self.random.random() < 0.5:
            crop = crop.flip(-1)
        return crop.clamp(0, 255) / 127.5 - 1

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) float32 in [-1, 1], channels-last."""
        crops = torch.stack([self._crop(size) for _ in range(count)])
        return crops.contiguous(memory_format=torch.channels_last)
