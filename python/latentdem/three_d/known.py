"""Known views as a prior is shown them, and their poses, also of crops around nobody knows what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .cameras import shares
from .noise_error import PairError
from .pictures import Crops, Picture
from .poses import Beliefs
from .recipe import Recipe
from .search import PoseSearch, Step, within
from .view_prior import ViewCondition, ViewPrior

FOUND = 0.9  # share of the search after which the views are cropped anew


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

    def cropped_anew(self, crops: Crops, prior: ViewPrior, beliefs: Beliefs) -> tuple[Known, Beliefs]:
        """The views cropped around where the likeliest cameras see the origin, and beliefs of these cameras.

        Unchanged where the cameras have no principal points.

        Args:
            crops: what the pictures are of.
            beliefs: of the cameras of all views.
        """
        cameras, principal = beliefs.cameras.tensor_split([3], dim=-1)
        if not principal.numel():
            return self, beliefs
        pictures = crops.pictures(shares(principal[0].cpu()))
        again = Known.of(pictures, prior, self.pixels.device, self.turned is not None)
        return again, replace(beliefs, cameras=cameras)


def find(
    prior: ViewPrior,
    known: Known,
    crops: Crops | None,
    recipe: Recipe,
    generator: torch.Generator,
    on_step: Step,
) -> tuple[Beliefs, Tensor]:
    """What is believed of the cameras, and the confidence in each (n,), as `PoseSearch` gives them.

    A crop is around the middle of what is seen of an object from one side, and these middles are not those of
    one point of it. Where the pictures are crops, the search moves their principal points with the cameras;
    then they are cropped anew by what it found, and the cameras move once more.

    Args:
        prior: of the views.
        known: these.
        crops: they are of; None where their middles are known to show one point.
        recipe: constants.
        generator: of the noise.
        on_step: called with the finished share.

    Returns:
        Cameras with the principal points of the crops, if the prior can be told these, and the confidence.
    """

    def search(known: Known, condition: ViewCondition) -> PoseSearch:
        return PoseSearch(PairError(prior, condition, prior.encode(known.pixels)), recipe, generator)

    condition = known.condition if crops is None else known.condition.cropped()
    beliefs, confidence = search(known, condition)(within(on_step, 0.0, FOUND))
    if crops is not None and condition.principal is not None:
        again, straight = known.cropped_anew(crops, prior, beliefs)
        moved = search(again, again.condition).refine(
            straight.cameras,
            torch.arange(len(known.pixels)),
            recipe.refinements // 2,
            (0.5, 0.0),
            exact=True,
            on_step=within(on_step, FOUND, 1.0),
        )
        beliefs = replace(beliefs, cameras=torch.cat([moved, beliefs.cameras[..., 3:]], dim=-1))
    on_step(1.0)
    return beliefs, confidence
