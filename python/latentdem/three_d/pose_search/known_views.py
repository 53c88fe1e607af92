"""Known views as a prior is shown them, and their poses, also of crops around nobody knows what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import ReconstructionConfig
from ..pictures import Crops, Picture
from ..poses import Beliefs
from ..priors.base import ViewCondition, ViewPrior
from .noise_error import PairError
from .search import PoseSearch, Step


@dataclass(frozen=True)
class Known:
    """The known views of one object.

    Attributes:
        pictures: n of them.
        pixels: (n, 3, S, S) the same, where the prior is.
        condition: what the prior keeps of them. Polar angles that it estimates are the mean of those of the
            pictures and of the pictures turned left to right.
        turned: what it keeps of the latter, where these are wanted, too.
    """

    pictures: list[Picture]
    pixels: Tensor
    condition: ViewCondition
    turned: ViewCondition | None

    @classmethod
    def of(cls, pictures: Sequence[Picture], prior: ViewPrior, device: torch.device, mirrored: bool) -> Known:
        """Looked at by the prior.

        Args:
            mirrored: whether the pictures turned left to right are wanted, too, if the prior foretells views.
        """
        pixels = torch.cat([picture.pixels for picture in pictures]).to(device)
        condition, turned = prior.condition(pixels), None
        if mirrored and prior.temperature < 1:
            turned = prior.condition(pixels.flip(-1))
            if condition.polar is not None and turned.polar is not None:
                condition = replace(condition, polar=(condition.polar + turned.polar) / 2)
        return cls(list(pictures), pixels, condition, turned)

    def cropped_anew(self, crops: Crops, prior: ViewPrior, cameras: Tensor) -> Known:
        """The views cropped around where their cameras (n, 5) see the origin, scaled as if from one distance.

        Args:
            crops: what the pictures are of.
        """
        again = crops.framed(cameras.cpu()).pictures()
        return Known.of(again, prior, self.pixels.device, self.turned is not None)


def framed(crops: Crops, prior: ViewPrior, device: torch.device) -> Crops:
    """The crops around where the prior supposes that the object has its middle, where it does so."""
    pixels = torch.cat([picture.pixels for picture in crops.pictures()])
    cameras = prior.framing(pixels.to(device))
    return crops if cameras is None else crops.framed(cameras.cpu())


def find(
    prior: ViewPrior,
    known: Known,
    crops: Crops | None,
    recipe: ReconstructionConfig,
    generator: torch.Generator,
    on_step: Step,
) -> tuple[Beliefs, Tensor]:
    """What is believed of the cameras, and the confidence in each (n,), as `PoseSearch` gives them.

    A crop is around the middle of what is seen of an object from one side, which is not always the same point
    of it, and its size depends on the side, too. Where the pictures are crops, the search moves their principal
    points and distances with the cameras until all views have been placed; then they are cropped anew.

    Args:
        prior: of the views.
        known: these.
        crops: they are of; None where their middles are known to show one point.
        recipe: constants.
        generator: of the noise.
        on_step: called with the finished share.
    """

    def error(known: Known, condition: ViewCondition) -> PairError:
        return PairError(prior, condition, prior.encode(known.pixels))

    condition = known.condition if crops is None else known.condition.cropped()
    if crops is None or condition.principal is None:
        return PoseSearch(error(known, condition), recipe, generator)(on_step)

    def anew(cameras: Tensor) -> PairError:
        again = known.cropped_anew(crops, prior, cameras)
        return error(again, again.condition)

    return PoseSearch(error(known, condition), recipe, generator, anew)(on_step)
