"""What is compared: how many views a method sees, what it is told, and which part of it is left out."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UserError
from ...solver.schedules import Annealing
from ..config import ReconstructionConfig


@dataclass(frozen=True)
class ViewMethod:
    """One row of the table.

    Attributes:
        name: on the command line.
        title: in the table.
        inputs: number of known views.
        told: whether their poses are given.
        files: whether the views come as pictures of files do, to be cut out and cropped, and not as they are.
        recipe: of `reconstruct`.
    """

    name: str
    title: str
    inputs: int
    told: bool = False
    files: bool = False
    recipe: ReconstructionConfig = ReconstructionConfig()

    @property
    def searches(self) -> bool:
        """Whether there are poses to find."""
        return self.inputs > 1 and not self.told


METHODS = (
    ViewMethod("one", "one view (Zero123)", 1),
    ViewMethod("two", "two views, poses estimated", 2),
    ViewMethod("two-true", "two views, true poses", 2, told=True),
    ViewMethod("three", "three views, poses estimated", 3),
    ViewMethod("two-files", "two pictures as files, poses estimated", 2, files=True),
    ViewMethod("three-files", "three pictures as files, poses estimated", 3, files=True),
    ViewMethod(
        "no-annealing",
        "two views, fusion not annealed",
        2,
        recipe=ReconstructionConfig(fusion=Annealing(0.0, 0.0)),
    ),
    ViewMethod(
        "no-pixelwise", "two views, all pixels weigh alike", 2, recipe=ReconstructionConfig(pixelwise=False)
    ),
    ViewMethod(
        "no-m-step",
        "two views, no M-step",
        2,
        recipe=ReconstructionConfig(refinements=0, bundled=False, rate=0.0),
    ),
    ViewMethod("no-bundle", "two views, no bundle adjustment", 2, recipe=ReconstructionConfig(bundled=False)),
    ViewMethod("no-mean", "two views, the likeliest poses alone", 2, recipe=ReconstructionConfig(believed=1)),
    ViewMethod("no-mirror", "two views, pictures not mirrored", 2, recipe=ReconstructionConfig(mirrored=False)),
    ViewMethod("single-hypothesis", "two views, one hypothesis", 2, recipe=ReconstructionConfig(hypotheses=1)),
)


def pick(names: str | None) -> tuple[ViewMethod, ...]:
    """The methods of these names, separated by commas, in the order of `METHODS`; all of them for None.

    Raises:
        UserError: one of them is not known; the message lists them.
    """
    if names is None:
        return METHODS
    wanted = {name.strip() for name in names.split(",")}
    known = {method.name for method in METHODS}
    if wrong := sorted(wanted - known):
        raise UserError(f"No method '{wrong[0]}'; there are {', '.join(method.name for method in METHODS)}.")
    return tuple(method for method in METHODS if method.name in wanted)
