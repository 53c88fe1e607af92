"""Constants of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..solver.schedules import Annealing
from .fusion import FUSION


@dataclass(frozen=True)
class ReconstructionConfig:
    """How poses are searched and views are fused.

    Attributes:
        hypotheses: number of poses of each view that the search keeps.
        refinements: M-steps of the search. Two views take all of them. Of three or more views, each pair with
            the first takes half of them, a view that joins a third, and all views together take two halves.
        search_rate: size of the first of these steps in radians; the last one is near 0.
        posterior_size: largest number of sets of poses that are kept when a view joins and that the generated
            views are averaged over, weighted by their probabilities; 1 for the most likely set alone.
        bundled: whether each of these sets is finally bundle-adjusted, moving together with the shape of the
            object, if the prior represents the shape.
        mirrored: whether the generated views are averaged with those from the mirrored pictures, if the prior
            predicts mean views.
        rate: step size in radians of the M-step during the generation of views, at the noisiest timestep; it
            falls with t, and 0 stands for no M-step. It is small because the search has refined the poses.
        fusion: annealing of the modelling error of the estimated poses, see `fusion_weights`;
            Annealing(0, 0) weights all views equally throughout.
        pixelwise: whether views are weighted pixel by pixel by the variances that the prior predicts; otherwise
            all pixels have equal weights, as in the paper.
        radius: whether distances are estimated, too; otherwise all cameras are as far away as that of view 1.
        outlines: whether cameras and crops are finally moved such that the outlines of the object agree, see
            `tangency.agree`, if the prior estimates polar angles.
    """

    hypotheses: int = 8
    refinements: int = 36
    search_rate: float = 0.06
    posterior_size: int = 5
    bundled: bool = True
    mirrored: bool = True
    rate: float = 0.002
    fusion: Annealing = FUSION
    pixelwise: bool = True
    radius: bool = False
    outlines: bool = True


class Recipe(ReconstructionConfig):
    """Deprecated name of `ReconstructionConfig`, in which `posterior_size` is called `believed`."""

    def __init__(self, *values: Any, believed: int | None = None, **named: Any) -> None:
        if believed is not None:
            named["posterior_size"] = believed
        super().__init__(*values, **named)

    @property
    def believed(self) -> int:
        """`posterior_size`."""
        return self.posterior_size
