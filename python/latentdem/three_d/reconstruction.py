"""`reconstruct`: finds the poses of a few pictures of an object and generates new views of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import check_backend, check_seed, resolve_device
from ..errors import UserError
from ..io.inputs import OneImage
from ..output.report import versions
from ..priors.prior_names import name_of
from ..solver.checkpoint import digest
from .checkpoint import ViewCheckpoint
from .config import ReconstructionConfig
from .cutout import CutoutLike
from .geometry.cameras import centred, grid_points, mirrored
from .geometry.poses import PosePosterior, bounded, ring
from .output.result import Reconstruction
from .pictures import Crops, Picture, check_distinct, view_on_white
from .pose_search.known_views import KnownViews, find_poses, frame_crops
from .pose_search.tangency import POSES_FOUND, POSES_GIVEN, agree
from .priors.base import MAX_BATCH, ViewCondition, ViewPrior
from .priors.loading import load_view_prior
from .sampler import SamplerState, sample

Progress = Callable[[str, float, float], None]
SEARCH_SHARE = 0.4  # share of the search in the reported progress
FILLED_POINTS = 64  # grid points along one side at which the probability of the object is evaluated


def reconstruct(
    images: Sequence[OneImage] | Tensor,
    *,
    prior: str | Path | ViewPrior = "embedded-3d",
    azimuths: int = 12,
    elevations: Sequence[float] = (0.0,),
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
    poses: Tensor | None = None,
    cutout: CutoutLike = "auto",
    resolution: int = 256,
    config: ReconstructionConfig | None = None,
    checkpoint: str | Path | ViewCheckpoint | None = None,
    progress: Progress | None = None,
    recipe: ReconstructionConfig | None = None,
) -> Reconstruction:
    """Finds the poses of pictures of one object, and generates views of it from a ring of cameras.

    A single picture has no pose to find: its views are those of the prior, as with Zero123.

    Args:
        images: paths, PIL images, arrays or tensors (1, C, H, W), the first being the reference; the object is
            cut out, centred and scaled (pictures of one size by a common factor), and then cropped as the prior
            frames it (`ViewPrior.framing`). Or one tensor
            (n, 3, S, S) in [-1, 1] on white, where S is the prior's size, which is used as it is.
        prior: "embedded-3d", a folder or a `ViewPrior`.
        azimuths: number of views at each elevation, evenly spaced, starting from that of view 1.
        elevations: degrees above the height of view 1.
        steps: diffusion steps.
        seed: random seed; the same seed gives the same views.
        device: "auto", "cpu" or "cuda".
        poses: (n, 3) polar angle, azimuth and radius relative to view 1, in radians, if they are known; then
            nothing is searched, and they are not refined, apart from how high the cameras are together.
        cutout: how the object is cut out: "alpha" (transparency), "plain" (a background of one colour),
            "grabcut" (OpenCV's GrabCut), "auto" (the first of these that is possible), or masks, see
            `cutout.ways_of`.
        resolution: pixels along one side of the `pictures` of the result, from which a mesh gets its texture; a
            tensor keeps its own.
        config: constants; None for the defaults.
        checkpoint: folder in which the run is kept: the poses once they are found, and the views every few
            seconds. The same call resumes an interrupted run, on a CPU with the same bits. The folder is
            removed at the end, but a `ViewCheckpoint` is left for the caller to remove.
        progress: called as progress(phase, done, total) after every step; total counts the whole job.
        recipe: deprecated name of `config`.

    Raises:
        UserError: an argument is wrong, or an image shows no object; the message says which and what to do.
    """
    started = time.perf_counter()
    if recipe is not None:
        warnings.warn("The argument recipe is now called config.", DeprecationWarning, stacklevel=2)
    config = config or recipe or ReconstructionConfig()
    if len(images) == 0:
        raise UserError("No image was given; give at least one picture of the object.")
    if steps < 2:
        raise UserError(f"At least 2 steps are needed, not {steps}.")
    seed = check_seed(seed)
    targets, place = ring(azimuths, elevations), resolve_device(device)
    settings = {
        "prior": name_of(prior),
        "azimuths": azimuths,
        "elevations": list(elevations),
        "steps": steps,
        "seed": seed,
        "device": str(place),
        "backend": check_backend(),
        "poses_known": poses is not None,
        "cropped": not isinstance(images, Tensor),
        "cutout": str(cutout) if isinstance(cutout, (str, Path)) else "masks",
        "resolution": resolution,
        "config": asdict(config),
    }
    view_prior = load_view_prior(prior, place)
    names = [
        str(image) if isinstance(image, (str, Path)) else f"Image {i + 1}" for i, image in enumerate(images)
    ]
    crops, pictures = _load(images, view_prior, place, names, cutout)
    movable = crops if crops is not None and crops.cut else None  # only what is cut out can be cropped again
    inputs = torch.cat([picture.pixels for picture in pictures])
    check_distinct(inputs, names)
    given = None if poses is None else _checked(poses, len(inputs))
    run = ViewCheckpoint(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    if run is not None:
        digests = " ".join(digest(tensor) for tensor in (inputs, given) if tensor is not None)
        run.open({**settings, **versions(), "images and poses": digests})
    report = progress or (lambda phase, done, total: None)
    generator, seconds = torch.Generator().manual_seed(seed), {"loading": time.perf_counter() - started}

    with torch.no_grad():
        known = KnownViews.of(pictures, view_prior, place, config.mirrored, movable)
        searched = given is None and len(inputs) > 1
        phase = time.perf_counter()
        if searched:

            def search() -> tuple[PosePosterior, Tensor]:
                return find_poses(view_prior, known, movable, config, generator, on_search)

            def on_search(done: float) -> None:
                report("poses", SEARCH_SHARE * done, 1.0)

            posterior, confidence = search() if run is None else run.search(search, generator)
            posterior = replace(posterior, cameras=posterior.cameras.to(place))
            if movable is not None and posterior.cameras.shape[-1] > 3:
                movable = movable.framed(posterior.cameras[0].cpu())
                posterior = replace(posterior, cameras=centred(posterior.cameras))
        else:
            posterior, confidence = _given(given, known), torch.ones(len(inputs))
        if config.outlines and known.condition.polar is not None:
            freedom = POSES_FOUND if searched else POSES_GIVEN
            movable, posterior = agree(known.pictures, movable, posterior, freedom)
        if movable is not None and movable is not crops:
            crops = movable
            known = KnownViews.of(crops.pictures(), view_prior, place, config.mirrored, crops)
        seconds["poses"] = time.perf_counter() - phase
        before = SEARCH_SHARE if searched else 0.0

        def on_step(state: SamplerState) -> None:
            if run is not None:
                run.keep(state)
            report("views", before + (1 - before) * state.step / state.steps, 1.0)

        moving, fixed = config if searched else replace(config, rate=0.0), replace(config, rate=0.0)

        def generate(
            condition: ViewCondition,
            posterior: PosePosterior,
            targets: Tensor,
            config: ReconstructionConfig,
            *options: Any,
        ) -> tuple[Tensor, Tensor]:
            z, poses = sample(view_prior, condition, posterior, targets, steps, config, generator, *options)
            return torch.cat([view_prior.decode(part) for part in z.split(MAX_BATCH)]).clamp(-1, 1), poses

        state = None if run is None else run.resume()
        cameras = targets.to(place)
        views, final = generate(known.condition, posterior, cameras, moving, on_step, state)
        if known.mirrored is not None:
            mirror = replace(posterior, cameras=mirrored(posterior.cameras))
            others, _ = generate(known.mirrored, mirror, mirrored(cameras), fixed)
            views = (views + others.flip(-1)) / 2
        filled = _filled(view_prior, known, posterior, final)
    seconds["views"] = time.perf_counter() - phase - seconds["poses"]
    seconds["total"] = time.perf_counter() - started
    if run is not None and run is not checkpoint:
        run.remove()
    return Reconstruction(
        known.pixels.cpu(),
        final.cpu(),
        confidence,
        targets,
        views.cpu(),
        tuple(picture.cut for picture in known.pictures),
        tuple(picture.mask for picture in known.pictures),
        seconds,
        settings,
        None if known.condition.polar is None else float(posterior.cameras[0, 0, 0]),
        None if filled is None else filled.cpu(),
        tuple(known.pictures if crops is None else crops.pictures(resolution)),
        posterior.others,
    )


def _load(
    images: Sequence[OneImage] | Tensor,
    prior: ViewPrior,
    device: torch.device,
    names: Sequence[str],
    cutout: CutoutLike,
) -> tuple[Crops | None, list[Picture]]:
    """Pictures for the prior, and the crops that they are; None for a tensor."""
    if isinstance(images, Tensor):
        size = prior.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise UserError(
                f"A tensor of views has the shape (n, 3, {size}, {size}) with this prior, not "
                f"{tuple(images.shape)}; give pictures of other sizes as a list."
            )
        return None, [view_on_white(image, name) for image, name in zip(images, names, strict=True)]
    crops = Crops(images, prior.image_size, names, cutout)
    if crops.cut:
        crops = frame_crops(crops, prior, device)
    return crops, crops.pictures()


def _filled(prior: ViewPrior, known: KnownViews, posterior: PosePosterior, poses: Tensor) -> Tensor | None:
    """Probability (N, N, N) of the object at `grid_points`, the mean of that of views and of mirror images."""
    cameras, points = posterior.cameras[0], grid_points(FILLED_POINTS).to(poses)
    filled = prior.filled(known.condition.at(cameras), poses, points)
    if filled is None or known.mirrored is None:
        return filled
    mirror = prior.filled(known.mirrored.at(mirrored(cameras)), mirrored(poses), mirrored(points))
    return filled if mirror is None else (filled + mirror) / 2


def _checked(poses: Tensor, views: int) -> Tensor:
    """Known poses (views, 3) within their ranges; a UserError unless they are relative to view 1."""
    if tuple(poses.shape) != (views, 3) or not torch.isfinite(poses).all() or poses[0].any():
        raise UserError(
            f"Poses of {views} views have the shape ({views}, 3), finite and relative to view 1, so that the "
            "first is 0."
        )
    return bounded(poses.detach().float())


def _given(poses: Tensor | None, known: KnownViews) -> PosePosterior:
    """Certain posterior of views in known poses (n, 3); None stands for one view alone."""
    count, device = len(known.pixels), known.pixels.device
    poses = torch.zeros(count, 3) if poses is None else poses
    return PosePosterior.certain(known.condition.cameras(poses.to(device), torch.arange(count, device=device)))
