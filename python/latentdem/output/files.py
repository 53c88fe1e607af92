"""Output files of one restored photograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io.files import staging_folder
from ..io.images import ImageFile, write_image
from ..io.kernels import write_kernel
from .figures import save_figure
from .result import Restored, Result


@dataclass(frozen=True)
class Outputs:
    """Paths of the outputs of `latentdem.deblur`.

    Attributes:
        image: path of the restored photograph; the other files are named after it.
        figure: whether the figure of the run is drawn.
    """

    image: Path
    figure: bool = True

    @property
    def paths(self) -> list[Path]:
        """All files: image, kernel as a picture and as an array, figure where it is drawn."""
        endings = ["_kernel.png", "_kernel.npy", *(["_figure.png"] if self.figure else [])]
        return [self.image, *(self.image.with_name(self.image.stem + ending) for ending in endings)]

    @property
    def complete(self) -> bool:
        """Whether all files exist."""
        return all(path.exists() for path in self.paths)

    def write(self, result: Result, source: ImageFile) -> None:
        """Writes all files of the result of one image, or none; the image in the format of `source`.

        Raises:
            UserError: a file cannot be written.
        """
        with staging_folder(self.image.parent) as stage:
            write_image(stage / self.image.name, result.tensor, like=source)
            write_kernel(stage / f"{self.image.stem}_kernel", result.kernel)
            if self.figure:
                save_figure(result.plot(), stage / self.paths[-1].name)


@dataclass(frozen=True)
class RestoredOutputs:
    """Paths of the outputs of `latentdem.restore`: image, figure, and parameters that are arrays."""

    image: Path
    figure: bool = True

    @property
    def paths(self) -> list[Path]:
        """Files that are known before the run: image, and figure where it is drawn."""
        return [self.image, *([self._beside("figure.png")] if self.figure else [])]

    def write(self, result: Restored, source: ImageFile) -> list[Path]:
        """Writes all files of the result of one image, or none, and returns their paths.

        Raises:
            UserError: a file cannot be written.
        """
        arrays = {name: value[0] for name, value in result.parameters.items() if value[0].numel() > 1}
        with staging_folder(self.image.parent) as stage:
            write_image(stage / self.image.name, result.tensor, like=source)
            if self.figure:
                save_figure(result.plot(), stage / self.paths[-1].name)
            for name, value in arrays.items():
                np.save(stage / self._beside(f"{name}.npy").name, value.numpy())
        return [*self.paths, *(self._beside(f"{name}.npy") for name in arrays)]

    def _beside(self, ending: str) -> Path:
        return self.image.with_name(f"{self.image.stem}_{ending}")
