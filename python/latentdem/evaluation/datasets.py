"""Benchmarks of blind deblurring as folders: their layouts, scores and published figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import UserError
from ..io.images import SUFFIXES, image_names
from . import published


@dataclass(frozen=True)
class Picture:
    """Files of one blurred picture.

    Attributes:
        index: position among all pictures of the folder.
        name: its name in tables and for `--cases`.
        blurred: the picture.
        sharp: the true image, None where there is none.
        kernel: the true kernel, None where there is none.
        published_size: kernel size that published methods are given, None where that is not fixed.
    """

    index: int
    name: str
    blurred: Path
    sharp: Path | None = None
    kernel: Path | None = None
    published_size: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """A data set with true images.

    Attributes:
        title: in tables.
        pictures: number of pictures that the published means are over.
        layout: files of a folder, for error messages.
        pattern: regular expression of the stems of blurred pictures, with a group `name`.
        sharp: stem of the true image, in terms of the groups of `pattern`.
        kernel: the same for the true kernel, None where the set has none.
        grey: whether the score is that of the luminance.
        radius, border: of the score, see `score_aligned`.
        sizes: kernel sizes that published methods are given, by the group `kernel`.
        published: published figures.
    """

    title: str
    pictures: int
    layout: str
    pattern: str
    sharp: str
    kernel: str | None
    grey: bool
    radius: int
    border: int
    sizes: dict[str, int]
    published: tuple[published.Published, ...]

    def find(self, folder: Path) -> list[Picture]:
        """All pictures of a folder.

        Raises:
            UserError: the folder has another layout; the sentence says which file is missing.
        """
        kernels = self.kernel is not None and (folder / "kernels").is_dir()
        for part in ("blurred", "sharp"):
            if not (folder / part).is_dir():
                raise UserError(f"{folder / part} is missing; {self._expected}")
        matches = []
        for name in image_names(folder / "blurred"):
            if match := re.fullmatch(self.pattern, Path(name).stem):
                matches.append((name, match.groupdict()))
        if not matches:
            raise UserError(f"No picture in {folder / 'blurred'} is named as it should be; {self._expected}")
        return [
            Picture(
                index,
                groups["name"],
                folder / "blurred" / name,
                self._sharp_file(folder, name, groups),
                self._kernel_file(folder, name, groups) if kernels else None,
                self.sizes.get(groups.get("kernel", "")),
            )
            for index, (name, groups) in enumerate(sorted(matches, key=lambda m: natural_key(m[0])))
        ]

    @property
    def _expected(self) -> str:
        return f"the layout of {self.title} is {self.layout}."

    def _sharp_file(self, folder: Path, name: str, groups: dict[str, str]) -> Path:
        stem = self.sharp.format(**groups)
        for suffix in (".png", *sorted(SUFFIXES)):
            if (path := folder / "sharp" / (stem + suffix)).is_file():
                return path
        raise UserError(
            f"{folder / 'sharp' / stem}.png, the true image of {name}, is missing; {self._expected}"
        )

    def _kernel_file(self, folder: Path, name: str, groups: dict[str, str]) -> Path:
        path = folder / "kernels" / f"{str(self.kernel).format(**groups)}.npy"
        if not path.is_file():
            raise UserError(f"{path}, the true kernel of {name}, is missing; {self._expected}")
        return path


BENCHMARKS = {
    "levin": Benchmark(
        title="Levin et al. 2009",
        pictures=32,
        layout="blurred/imI_kernelJ_img.png, sharp/imI.png and kernels/kernelJ.npy",
        pattern=r"(?P<name>(?P<sharp>im\d+)_(?P<kernel>kernel\d+))_img",
        sharp="{sharp}",
        kernel="{kernel}",
        grey=True,
        radius=5,
        border=15,
        sizes={f"kernel{j + 1}": size for j, size in enumerate((17, 15, 13, 27, 11, 19, 21, 21))},
        published=published.LEVIN,
    ),
    "koehler": Benchmark(
        title="Koehler et al. 2012",
        pictures=48,
        layout="blurred/BlurryI_J.png and sharp/GroundTruthI.jpg or .png",
        pattern=r"(?P<name>Blurry(?P<scene>\d+)_\d+)",
        sharp="GroundTruth{scene}",
        kernel=None,
        grey=False,
        radius=30,
        border=35,
        sizes={},
        published=published.KOEHLER,
    ),
    "lai": Benchmark(
        title="Lai et al. 2016, uniform",
        pictures=100,
        layout="blurred/NAME_kernel_J.png, sharp/NAME.png and kernels/kernel_J.npy",
        pattern=r"(?P<name>(?P<sharp>.+)_(?P<kernel>kernel_\d+))",
        sharp="{sharp}",
        kernel="{kernel}",
        grey=False,
        radius=14,
        border=15,
        sizes={},
        published=published.LAI,
    ),
}


def find_photographs(folder: Path) -> list[Picture]:
    """All pictures of a folder without true images.

    Raises:
        UserError: it is no folder, or there are no images in it.
    """
    return [Picture(index, name, folder / name) for index, name in enumerate(image_names(folder))]


def select(pictures: Sequence[Picture], cases: Sequence[str], limit: int | None) -> list[Picture]:
    """The pictures whose names match any of `cases`, such as "im1_*", and of them the first `limit`.

    Raises:
        UserError: a pattern that matches no picture.
    """
    for case in cases:
        if not any(fnmatchcase(picture.name, case) for picture in pictures):
            known = ", ".join(picture.name for picture in pictures[:8])
            raise UserError(f"No picture is called '{case}'; there are {known}{', ...' * (len(pictures) > 8)}.")
    chosen = [p for p in pictures if not cases or any(fnmatchcase(p.name, case) for case in cases)]
    return chosen[:limit]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts the numbers in names by value, so that 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
