"""The methods that are compared: number of views, known or estimated poses, and parts that are left out."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UserError
from ...solver.schedules import Annealing
from ..config import ReconstructionConfig


@dataclass(frozen=True)
class ViewMethod:
    """One row of the table.

    Attributes:
        name: name on the command line.
        title: title in the table.
        inputs: number of known views.
        posed: whether the poses of the known views are given.
        files: whether the views are given like pictures from files, to be cut out and cropped, instead of as
            tensors.
        config: see `reconstruct`.
    """

    name: str
    title: str
    inputs: int
    posed: bool = False
    files: bool = False
    config: ReconstructionConfig = ReconstructionConfig()

    @property
    def searches(self) -> bool:
        """Whether poses are searched."""
        return self.inputs > 1 and not self.posed


METHODS = (
    ViewMethod("one", "one view (Zero123)", 1),
    ViewMethod("two", "two views, poses estimated", 2),
    ViewMethod("two-true", "two views, true poses", 2, posed=True),
    ViewMethod("three", "three views, poses estimated", 3),
    ViewMethod("two-files", "two pictures as files, poses estimated", 2, files=True),
    ViewMethod("three-files", "three pictures as files, poses estimated", 3, files=True),
    ViewMethod(
        "no-annealing",
        "two views, fusion not annealed",
        2,
        config=ReconstructionConfig(fusion=Annealing(0.0, 0.0)),
    ),
    ViewMethod(
        "no-pixelwise",
        "two views, all pixels weighted equally",
        2,
        config=ReconstructionConfig(pixelwise=False),
    ),
    ViewMethod(
        "no-m-step",
        "two views, no M-step",
        2,
        config=ReconstructionConfig(refinements=0, bundled=False, rate=0.0),
    ),
    ViewMethod("no-bundle", "two views, no bundle adjustment", 2, config=ReconstructionConfig(bundled=False)),
    ViewMethod(
        "no-outlines",
        "two views, outlines not made to agree",
        2,
        config=ReconstructionConfig(outlines=False),
    ),
    ViewMethod(
        "no-mean", "two views, the most likely poses alone", 2, config=ReconstructionConfig(posterior_size=1)
    ),
    ViewMethod("no-mirror", "two views, pictures not mirrored", 2, config=ReconstructionConfig(mirrored=False)),
    ViewMethod("single-hypothesis", "two views, one hypothesis", 2, config=ReconstructionConfig(hypotheses=1)),
)


def pick(names: str | None) -> tuple[ViewMethod, ...]:
    """The methods with these names, separated by commas, in the order of `METHODS`; all of them for None.

    Raises:
        UserError: a name is unknown; the message lists the names.
    """
    if names is None:
        return METHODS
    requested = {name.strip() for name in names.split(",")}
    known = {method.name for method in METHODS}
    if unknown := sorted(requested - known):
        raise UserError(f"No method '{unknown[0]}'; there are {', '.join(method.name for method in METHODS)}.")
    return tuple(method for method in METHODS if method.name in requested)
