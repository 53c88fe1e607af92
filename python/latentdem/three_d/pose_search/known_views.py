"""Known views as the prior sees them, and the search for their poses, also for crops of unknown centres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import ReconstructionConfig
from ..geometry.poses import PosePosterior
from ..pictures import Crops, Picture
from ..priors.base import ViewCondition, ViewPrior
from .features import FeatureMatches
from .noise_error import PairError
from .objective import SearchProgress
from .search import PoseSearch


@dataclass(frozen=True)
class KnownViews:
    """The known views of one object.

    Attributes:
        pictures: n pictures.
        pixels: (n, 3, S, S) pixels of the pictures on the device of the prior, in [-1, 1].
        condition: what the prior keeps of the pictures. Polar angles that it estimates are the means of those
            of the pictures and of their mirror images; of crops, the means of that and of `Crops.polar`.
        mirrored: what the prior keeps of the mirror images; None where they are not used.
    """

    pictures: list[Picture]
    pixels: Tensor
    condition: ViewCondition
    mirrored: ViewCondition | None

    @classmethod
    def of(
        cls,
        pictures: Sequence[Picture],
        prior: ViewPrior,
        device: torch.device,
        mirrored: bool,
        crops: Crops | None = None,
    ) -> KnownViews:
        """Conditions the prior on the pictures.

        Args:
            pictures: n pictures.
            prior: view-conditioned prior.
            device: where the prior runs.
            mirrored: whether to use the mirror images, too, if the prior predicts mean views.
            crops: what the pictures were made of.
        """
        pixels = torch.cat([picture.pixels for picture in pictures]).to(device)
        condition, mirror = prior.condition(pixels), None
        if mirrored and prior.temperature < 1:
            mirror = prior.condition(pixels.flip(-1))
            if condition.polar is not None and mirror.polar is not None:
                condition = replace(condition, polar=(condition.polar + mirror.polar) / 2)
        if condition.polar is not None and crops is not None and crops.polar is not None:
            polar = (condition.polar + crops.polar.to(condition.polar)) / 2
            deviation = None if crops.deviation is None else crops.deviation.to(polar)
            condition = replace(condition, polar=polar, deviation=deviation)
        return cls(list(pictures), pixels, condition, mirror)

    def recropped(self, crops: Crops, prior: ViewPrior, cameras: Tensor) -> KnownViews:
        """The views cropped around the origin as their cameras (n, 5) see it, scaled to one distance.

        Args:
            crops: crops that the pictures show.
            prior: view-conditioned prior.
            cameras: (n, 5) cameras with principal points.
        """
        pictures = crops.framed(cameras.cpu()).pictures()
        return KnownViews.of(pictures, prior, self.pixels.device, self.mirrored is not None, crops)


def frame_crops(crops: Crops, prior: ViewPrior, device: torch.device) -> Crops:
    """The crops around the estimated middle of the object; unchanged if the prior does not estimate it.

    Crops of pictures from one distance get their mean distance, weighted by inverse variances.
    """
    pixels = torch.cat([picture.pixels for picture in crops.pictures()])
    estimate = prior.framing(pixels.to(device))
    if estimate is None:
        return crops
    cameras, deviation = (values.cpu().clone() for values in estimate)
    if crops.one_distance:
        weights = deviation[:, 2].pow(-2)
        cameras[:, 2] = (cameras[:, 2] * weights).sum() / weights.sum()
        deviation[:, 2] = weights.sum().rsqrt()
    framed = crops.framed(cameras)
    framed.polar, framed.deviation = cameras[:, 0], deviation
    return framed


def find_poses(
    prior: ViewPrior,
    known: KnownViews,
    crops: Crops | None,
    config: ReconstructionConfig,
    generator: torch.Generator,
    on_step: SearchProgress,
) -> tuple[PosePosterior, Tensor]:
    """Posterior of the cameras of the known views, and the confidence (n,) in each; see `PoseSearch`.

    A crop is centred on what is visible of an object from one side. That is not always the same point of the
    object, and its size depends on the side, too. For crops, the search optimises principal points and
    distances with the cameras until all views have been placed; then the views are cropped again.

    Args:
        prior: view-conditioned prior.
        known: the known views.
        crops: crops that the views show; None if the middle of every view is known to show the same point.
        config: constants of the reconstruction.
        generator: source of the noise.
        on_step: called with the finished share.
    """
    matches, polar = None, known.condition.polar
    if crops is not None and polar is not None:
        matches = FeatureMatches.of(crops.layers()).agreeing(crops.tangents, polar)

    def error(known: KnownViews, condition: ViewCondition, crops: Crops | None = crops) -> PairError:
        mirror = None
        if known.mirrored is not None:
            mirror = PairError(prior, known.mirrored, prior.encode(known.pixels.flip(-1)))
        seen = None if matches is None or crops is None else matches.seen(crops.tangents)
        return PairError(prior, condition, prior.encode(known.pixels), mirror, seen)

    condition = known.condition if crops is None else known.condition.cropped()
    if crops is None or condition.principal is None:
        return PoseSearch(error(known, condition), config, generator)(on_step)

    def recrop(cameras: Tensor) -> PairError:
        recropped = known.recropped(crops, prior, cameras)
        return error(recropped, recropped.condition, crops.framed(cameras.cpu()))

    return PoseSearch(error(known, condition), config, generator, recrop)(on_step)
