"""Constants of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

from ..solver.schedules import Annealing
from .fusion import FUSION


@dataclass(frozen=True)
class ReconstructionConfig:
    """How poses are found and views are fused.

    Attributes:
        hypotheses: poses of each view that are kept in the search.
        refinements: M-steps of the search at the known views; of three views or more half of them for each pair
            with the first, a third when a view joins, and all of them, in two halves, for all views together.
        search_rate: their first step in radians; the last is near 0.
        believed: sets of poses, at most, that go on when a view joins, and that the views are the mean over, by
            their probabilities; 1 for the most likely one alone.
        bundled: whether each of these moves once more, together with the object's shape, where the prior
            knows of it.
        mirrored: whether the views are the mean of those out of the pictures and of those out of the pictures
            turned left to right, where the prior foretells views.
        rate: step in radians of the M-step at the noisiest views to be generated, falling with t; 0 for none.
            It is small: the search has refined the poses by views that are known.
        fusion: modelling error of the unknown poses, see `fusion_weights`; Annealing(0, 0) weighs all views
            alike throughout.
        pixelwise: whether views are weighed pixel by pixel by how sure the prior is of them; otherwise all
            pixels alike, as in the paper.
        radius: whether distances are estimated, too; otherwise all cameras are as far away as view 1.
    """

    hypotheses: int = 8
    refinements: int = 36
    search_rate: float = 0.06
    believed: int = 5
    bundled: bool = True
    mirrored: bool = True
    rate: float = 0.002
    fusion: Annealing = FUSION
    pixelwise: bool = True
    radius: bool = False
