"""`reconstruct`: a few pictures of an object in, their poses and new views out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import check_backend, resolve_device
from ..errors import UserError
from ..output.report import versions
from ..priors.prior_names import name_of
from ..solver.checkpoint import digest
from .cameras import grid_points, mirrored, straight
from .checkpoint import ViewCheckpoint
from .config import ReconstructionConfig
from .pictures import Crops, Picture, check_distinct, view_on_white
from .pose_search.known_views import Known, find, framed
from .pose_search.noise_error import MAX_BATCH
from .poses import Beliefs, bounded, ring
from .priors.base import ViewCondition, ViewPrior
from .priors.loading import load_view_prior
from .result import Reconstruction
from .sampler import Sampled, sample

Progress = Callable[[str, float, float], None]
SEARCH_SHARE = 0.4  # of the progress that is shown
SOLID = 64  # points along one side of the grid where it is told how likely the object is


def reconstruct(
    images: Sequence[Any] | Tensor,
    *,
    prior: str | Path | ViewPrior = "embedded-3d",
    azimuths: int = 12,
    elevations: Sequence[float] = (0.0,),
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
    poses: Tensor | None = None,
    recipe: ReconstructionConfig | None = None,
    checkpoint: str | Path | ViewCheckpoint | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Finds the poses of pictures of one object, and generates views of it from a ring of cameras.

    Of one picture alone there is no pose to find: the views are those of the prior, as Zero123's.

    Args:
        images: paths, PIL images, arrays or tensors (1, C, H, W), the first being the reference; the object
            is cut out by an alpha channel or from a plain background, centred and scaled, pictures of one
            size by one factor, then as the prior frames it (`ViewPrior.framing`). Or one tensor (n, 3, S, S)
            in [-1, 1] on white, S the prior's size, which is taken as it is.
        prior: "embedded-3d", a folder or a `ViewPrior`.
        azimuths: views on each elevation, evenly spaced, from that of view 1.
        elevations: degrees above the height that view 1 was taken from.
        steps: diffusion steps.
        seed: of all randomness; the same seed gives the same views.
        device: "auto", "cpu" or "cuda".
        poses: (n, 3) polar angle, azimuth and radius relative to view 1, in radians, where they are known;
            then nothing is searched, and they do not move.
        recipe: constants; None for the defaults.
        checkpoint: folder that the run is kept in: the poses that were found, and the views every few seconds.
            The same call goes on where an interrupted one was, on a CPU with the same bits. At the end the
            folder is removed; a `ViewCheckpoint` is left for the caller to remove.
        progress: called as progress(phase, done, total) after every step; total counts the whole job.

    Raises:
        UserError: an argument is wrong, or an image shows no object; the message says which and what to do.
    """
    started = time.perf_counter()
    recipe = recipe or ReconstructionConfig()
    if len(images) == 0:
        raise UserError("No image was given; give at least one picture of the object.")
    if steps < 2:
        raise UserError(f"At least 2 steps are needed, not {steps}.")
    targets, where = ring(azimuths, elevations), resolve_device(device)
    settings = {
        "prior": name_of(prior),
        "azimuths": azimuths,
        "elevations": list(elevations),
        "steps": steps,
        "seed": seed,
        "device": str(where),
        "backend": check_backend(),
        "poses_known": poses is not None,
        "cropped": not isinstance(images, Tensor),
        "recipe": asdict(recipe),
    }
    prior = load_view_prior(prior, where)
    names = [
        str(image) if isinstance(image, (str, Path)) else f"Image {i + 1}" for i, image in enumerate(images)
    ]
    crops = None
    if isinstance(images, Tensor):
        pictures = _as_they_are(images, prior.image_size, names)
    else:
        crops = Crops(images, prior.image_size, names)
        if crops.cut:
            crops = framed(crops, prior, where)
        pictures = crops.pictures()
    check_distinct(torch.cat([picture.pixels for picture in pictures]), names)
    inputs = torch.cat([picture.pixels for picture in pictures])
    told = None if poses is None else _checked(poses, len(inputs))
    kept = ViewCheckpoint(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    if kept is not None:
        held = " ".join(digest(each) for each in (inputs, told) if each is not None)
        kept.open({**settings, **versions(), "images and poses": held})
    report = progress or (lambda phase, done, total: None)
    generator, seconds = torch.Generator().manual_seed(seed), {"loading": time.perf_counter() - started}

    with torch.no_grad():
        known = Known.of(pictures, prior, where, recipe.mirrored)
        confidence = torch.ones(len(inputs))
        poses = torch.zeros(len(inputs), 3) if told is None else told
        beliefs = Beliefs.sure(
            known.condition.cameras(poses.to(where), torch.arange(len(inputs), device=where))
        )
        searched = told is None and len(inputs) > 1
        phase = time.perf_counter()
        if searched:
            cut = crops if crops is not None and crops.cut else None

            def on_found(done: float) -> None:
                report("poses", SEARCH_SHARE * done, 1.0)

            run = partial(find, prior, known, cut, recipe, generator, on_found)
            beliefs, confidence = run() if kept is None else kept.search(run, generator)
            beliefs = replace(beliefs, cameras=beliefs.cameras.to(where))
            if cut is not None and beliefs.cameras.shape[-1] > 3:
                known = known.cropped_anew(cut, prior, beliefs.cameras[0])
                beliefs = replace(beliefs, cameras=straight(beliefs.cameras))
        condition = known.condition
        seconds["poses"] = time.perf_counter() - phase
        before = SEARCH_SHARE if searched else 0.0

        def on_step(state: Sampled) -> None:
            if kept is not None:
                kept.keep(state)
            report("views", before + (1 - before) * state.step / state.steps, 1.0)

        def made(
            condition: ViewCondition,
            beliefs: Beliefs,
            targets: Tensor,
            recipe: ReconstructionConfig,
            *followed: Any,
        ) -> tuple[Tensor, Tensor]:
            z, found = sample(prior, condition, beliefs, targets, steps, recipe, generator, *followed)
            return torch.cat([prior.decode(part) for part in z.split(MAX_BATCH)]).clamp(-1, 1), found

        around, still = targets.to(where), replace(recipe, rate=0.0)
        resumed = None if kept is None else kept.resume()
        views, found = made(condition, beliefs, around, recipe if searched else still, on_step, resumed)
        if known.turned is not None:
            opposite = replace(beliefs, cameras=mirrored(beliefs.cameras))
            others, _ = made(known.turned, opposite, mirrored(around), still)
            views = (views + others.flip(-1)) / 2
        filled = prior.filled(condition.at(beliefs.cameras[0]), found, grid_points(SOLID).to(found))
    seconds["views"] = time.perf_counter() - phase - seconds["poses"]
    seconds["total"] = time.perf_counter() - started
    if kept is not None and kept is not checkpoint:
        kept.remove()
    return Reconstruction(
        known.pixels.cpu(),
        found.cpu(),
        confidence,
        targets,
        views.cpu(),
        tuple(picture.cut for picture in known.pictures),
        tuple(picture.mask for picture in known.pictures),
        seconds,
        settings,
        None if condition.polar is None else float(beliefs.cameras[0, 0, 0]),
        None if filled is None else filled.cpu(),
    )


def _as_they_are(images: Tensor, size: int, names: Sequence[str]) -> list[Picture]:
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise UserError(
            f"A tensor of views has the shape (n, 3, {size}, {size}) with this prior, not "
            f"{tuple(images.shape)}; give pictures of other sizes as a list."
        )
    return [view_on_white(image, name) for image, name in zip(images, names, strict=True)]


def _checked(poses: Tensor, views: int) -> Tensor:
    if tuple(poses.shape) != (views, 3) or not torch.isfinite(poses).all() or poses[0].any():
        raise UserError(
            f"Poses of {views} views have the shape ({views}, 3), finite and relative to view 1, so that the "
            "first is 0."
        )
    return bounded(poses.detach().float())
