"""Trains the network that tells right from wrong poses of two views, with the embedded view-conditioned prior.

    python tools/train_view_prior.py render --out runs/views
    python tools/train_view_prior.py render --out runs/views --meshes OBJECTS --photos PHOTOS
    python tools/train_pose_scorer.py hypotheses --out runs/views
    python tools/train_pose_scorer.py train --out runs/views
    python tools/train_pose_scorer.py evaluate --out runs/views
    python tools/train_pose_scorer.py export --out runs/views

`hypotheses` keeps what the prior makes of right and wrong poses of pairs of views, 1.6 MB a pair, about four
pairs a second on one core. It and `train` continue where they stopped.
Needs `pip install "latentdem[three-d]"`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from _training import Trainer
from _views import Views
from torch import Tensor
from torch.optim import AdamW
from tqdm import tqdm
from train_prior import Device, Minutes, Out, Steps, averaged, make_readable
from train_view_prior import Base, Init, Share, mixed, training_views

from latentdem.priors.loading import load_network
from latentdem.three_d.geometry.cameras import POLAR_RANGE, camera_axes, relative_pose, wrap
from latentdem.three_d.pose_search.noise_error import expected_error
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.pose_scorer import LOG_VARIANCES, PoseScorer

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
DEFAULT = Path("runs/views")
HYPOTHESES = 16  # poses of a pair: two that are nearly right, three that are nearer than most, and any others
DRIFTING = 4  # of them, one near and three others, whose heights are as wrong as a search may leave them
# Standard deviations of their errors in azimuth, where they are right and near, and in height.
RIGHT, NEAR, POLAR, DRIFTED = (math.radians(angle) for angle in (5, 18, 9, 25))
APART = math.radians(25)  # smallest difference between the azimuths of two views
PART = 64  # pairs in a file
TOGETHER = 4  # pairs whose hypotheses are computed at once
JITTERED = 0.5  # share of the pairs whose pictures are moved and scaled a little, as crops are
MOVED, EXPOSED = 0.04, 0.05  # standard deviations of shifts in half frames, of scales and of exposures
SHARP = math.radians(8)  # standard deviation of the errors of poses that count as right
ACCEPTED = math.radians(20)  # error of a pose that is as good as none
NOISE = (0.001, 0.1)  # range of the noise of what the network sees, in units of its standard deviation
LEVELS = (0.05, 0.15, 0.3, 0.5)  # cumulative alphas at which the noise error is compared

Pairs = dict[str, Tensor]


@app.command()
def hypotheses(
    out: Out = DEFAULT,
    parts: Annotated[int, typer.Option(help=f"Files of {PART} pairs.")] = 100,
    weights: Annotated[Path, typer.Option(help="Folder of the prior.")] = EMBEDDED_3D_WEIGHTS,
    device: Device = "cpu",
) -> None:
    """Keeps what the prior makes of poses of pairs of views, of training objects and of held-out ones."""
    prior = EmbeddedViewPrior.from_pretrained(weights, device)
    data = training_views(out, torch.device("cpu"))
    folder = out / "poses"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("held_out", "held_out_meshes"):
        if (out / name).exists() and not (folder / f"{name}.pt").exists():
            torch.manual_seed(5)
            _save(folder / f"{name}.pt", pairs_of(prior, Views(out / name), 2 * PART, jittered=0.0))
    for part in tqdm(range(parts)):
        if not (path := folder / f"train{part:04d}.pt").exists():
            data.update()
            torch.manual_seed(1000 + part)
            _save(path, pairs_of(prior, data, PART, JITTERED))


def _save(path: Path, pairs: Pairs) -> None:
    torch.save(pairs, temporary := path.with_suffix(".tmp"))
    os.replace(temporary, path)


@torch.no_grad()
def pairs_of(prior: EmbeddedViewPrior, data: Views, count: int, jittered: float) -> Pairs:
    """Pairs of views and poses of them, as float16 but for the errors.

    Returns:
        rendered: (count, H, 2, f, h, w) features of the second view predicted from the first and of the first
            from the second, at every pose.
        latents: (count, 2, c, h, w) latents of the second and of the first view.
        errors: (count, H) errors of the poses in radians, see `pose_errors`.
    """
    made = [
        _some_pairs(prior, data, min(TOGETHER, count - done), jittered) for done in range(0, count, TOGETHER)
    ]
    return {name: torch.cat([some[name] for some in made]) for name in made[0]}


def _some_pairs(prior: EmbeddedViewPrior, data: Views, count: int, jittered: float) -> Pairs:
    objects, views = data.draw(count), torch.empty(count, 2, dtype=torch.long)
    for row, shown in enumerate(objects.tolist()):
        azimuths = data.cameras[shown, :, 1]
        far = (wrap(azimuths[:, None] - azimuths).abs() > APART).nonzero()
        views[row] = far[torch.randint(len(far), ())]
    true = data.cameras[objects[:, None], views].float()
    x = data.images(objects[:, None], views).flatten(0, 1)
    x = jitter(x, jittered).to(prior.device)
    cameras = random_hypotheses(true)
    condition, latents = prior.condition(x), prior.encode(x).unflatten(0, (count, 2))
    first = 2 * torch.arange(count).repeat_interleave(HYPOTHESES)
    rows = cameras.flatten(0, 1).to(x)
    rendered = []
    for known, (here, there) in ((first, rows.unbind(1)), (first + 1, rows.flip(1).unbind(1))):
        posed = prior.posed(condition[known].at(here), relative_pose(there, here))
        rendered.append(posed.parts[0].half().cpu().unflatten(0, (count, HYPOTHESES)))
    return {
        "rendered": torch.stack(rendered, 2),
        "latents": latents.flip(1).half().cpu(),
        "errors": pose_errors(cameras, true[:, None]),
    }


def jitter(x: Tensor, share: float) -> Tensor:
    """Views (2 N, 3, S, S) on white, of which a share of the pairs is moved and scaled, and all are exposed."""
    count, moved = len(x), (torch.rand(len(x) // 2) < share).repeat_interleave(2)
    maps = torch.eye(2, 3).repeat(count, 1, 1)
    maps[:, :, 2] = MOVED * torch.randn(count, 2)
    maps[:, 0, 0] = maps[:, 1, 1] = torch.exp(MOVED * torch.randn(count))
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    x = torch.where(moved[:, None, None, None], F.grid_sample(x - 1, grid, align_corners=False) + 1, x)
    light, shown = (x + 1) / 2, x.amin(1, keepdim=True) < 0.96
    exposed = (light * torch.exp(EXPOSED * torch.randn(count, 1, 1, 1))).clamp(0, 1)
    return torch.where(shown, exposed, light) * 2 - 1


def random_hypotheses(true: Tensor) -> Tensor:
    """Cameras (N, H, 2, 3), the first at azimuth 0 and distance 0, for pairs with `true` cameras (N, 2, 3)."""
    count, rest = len(true), HYPOTHESES - 5
    heights = [RIGHT] * 2 + [POLAR] * 2 + [DRIFTED] * DRIFTING + [POLAR] * (rest + 1 - DRIFTING)
    spread = torch.tensor(heights)[:, None]
    polar = (true[:, None, :, 0] + spread * torch.randn(count, HYPOTHESES, 2)).clamp(*POLAR_RANGE)
    errors = [
        RIGHT * torch.randn(count, 2),
        NEAR * torch.randn(count, 3),
        2 * math.pi * torch.rand(count, rest),
    ]
    azimuth = (true[:, 1, 1] - true[:, 0, 1])[:, None] + torch.cat(errors, 1)
    cameras = torch.zeros(count, HYPOTHESES, 2, 3)
    cameras[..., 0], cameras[..., 1, 1] = polar, azimuth
    cameras[..., 1, 2] = (true[:, 1, 2] - true[:, 0, 2])[:, None]
    return cameras


def pose_errors(cameras: Tensor, true: Tensor) -> Tensor:
    """Angles (...) between the directions of second views, relative to first ones, by cameras (..., 2, 3)."""

    def direction(pair: Tensor) -> Tensor:
        pose = relative_pose(pair[..., 1, :], pair[..., 0, :])
        polar = true[..., 0, 0].expand(pose.shape[:-1]) + pose[..., 0]
        return -camera_axes(torch.stack([polar, pose[..., 1], torch.ones_like(polar)], -1))[3]

    return (direction(cameras) * direction(true)).sum(-1).clamp(-1, 1).acos()


def scores(model: PoseScorer, rendered: Tensor, latents: Tensor) -> Tensor:
    """Scores (N, H) of poses, the sum of both directions; for the arguments see `pairs_of`."""
    shape = rendered.shape[:3]
    targets = latents[:, None].expand(*shape, *latents.shape[2:])
    return model(rendered.flatten(0, 2), targets.flatten(0, 2)).view(shape).sum(2)


def noise_errors(rendered: Tensor, latents: Tensor) -> Tensor:
    """What the search minimises without the network (N, H), by its expectation at `LEVELS`."""
    channels = latents.shape[2]
    mean, log_variance = rendered[:, :, :, :channels].float(), rendered[:, :, :, channels].float()
    variance = log_variance.clamp(*LOG_VARIANCES).exp()[:, :, :, None]
    errors = [expected_error(latents[:, None].float(), mean, variance, level) for level in LEVELS]
    return torch.stack(errors).mean(0).sum((2, 3, 4, 5))


def of_others(rendered: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The same where each first view is of the pair before, another object: no pose is right."""
    here, there = rendered.unbind(2)
    second, first = latents.unbind(1)
    return torch.stack([here.roll(1, 0), there], 2), torch.stack([second, first.roll(1, 0)], 1)


def disturbed(values: Tensor, level: Tensor) -> Tensor:
    """Features or latents (N, ..., c, h, w) of pairs with noise of a level (N,) in units of their spread."""
    places = [i for i in range(values.ndim) if i != values.ndim - 3]
    spread = values.std(places, keepdim=True)
    return values + level.view(-1, *[1] * (values.ndim - 1)) * spread * torch.randn_like(values)


def cross_entropy(found: Tensor, errors: Tensor) -> Tensor:
    """Mean cross-entropy between the softmax of scores (N, H) and what errors of poses (N, H) say is right.

    That none of the poses is right competes with them, at a score of 0 and as a pose with the error `ACCEPTED`.
    So scores tell, beside which pose is right, whether any is.
    """
    found, errors = F.pad(found, (0, 1)), F.pad(errors, (0, 1), value=ACCEPTED)
    wanted = torch.softmax(-0.5 * (errors / SHARP).square(), 1)
    return -(wanted * found.log_softmax(1)).sum(1).mean()


@app.command()
def train(
    out: Out = DEFAULT,
    steps: Steps = 3000,
    batch: int = 16,
    chosen: Annotated[int, typer.Option(help="Poses of a pair in a step.")] = 10,
    learning_rate: float = 2e-3,
    minutes: Minutes = None,
    device: Device = "cpu",
    init: Init = None,
) -> None:
    """Trains the network and evaluates it."""
    place, paths = torch.device(device), sorted((out / "poses").glob("train*.pt"))
    if not paths:
        raise SystemExit(f"No poses in {out / 'poses'}; run `train_pose_scorer.py hypotheses` first.")
    parts = [torch.load(path, mmap=True, weights_only=True) for path in paths]
    torch.manual_seed(0)
    if init is None:
        model = PoseScorer(parts[0]["rendered"].shape[3], parts[0]["latents"].shape[2])
    else:
        model = load_network(PoseScorer, init).requires_grad_()
    model.save_config(out / "pose_scorer")
    model = model.train().to(place, memory_format=torch.channels_last)
    optimizer = AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02, fused=True)
    trainer = Trainer(
        model, out / "pose_scorer", steps=steps, optimizers=[optimizer], ema_decay=0.99, minutes=minutes
    )
    torch.manual_seed(trainer.step)

    def loss_fn(step: int) -> dict[str, Tensor]:
        part = parts[int(torch.randint(len(parts), ()))]
        rows = torch.randperm(len(part["errors"]))[:batch].sort().values
        some = torch.randperm(part["errors"].shape[1])[:chosen]
        level = torch.empty(len(rows), device=place).uniform_(*map(math.log, NOISE)).exp()
        rendered, latents = (
            disturbed(part[name][rows].to(place).float(), level) for name in ("rendered", "latents")
        )
        rendered, errors = rendered[:, some], part["errors"][rows][:, some].to(place)
        own = cross_entropy(scores(model, rendered, latents), errors)
        found = scores(model, *of_others(rendered[:, : chosen // 2], latents))
        others = cross_entropy(found, torch.full_like(found, torch.inf))
        return {"loss": own + others, "own": own, "others": others}

    trainer.run(loss_fn, place)
    evaluate(out)


def trained(out: Path) -> PoseScorer:
    """The trained network with averaged weights."""
    return averaged(PoseScorer, out / "pose_scorer")


@app.command()
@torch.no_grad()
def evaluate(out: Out = DEFAULT) -> None:
    """How often the pose chosen of 16 is right on held-out objects: by the noise error, the scores and both."""
    model = trained(out)
    for path in sorted((out / "poses").glob("held_out*.pt")):
        held = torch.load(path, weights_only=True)
        degrees = held["errors"].rad2deg()
        parts = torch.arange(len(degrees)).split(TOGETHER)
        noise, found = (
            torch.cat([judge(held["rendered"][i].float(), held["latents"][i].float()) for i in parts])
            for judge in (noise_errors, lambda *pair: scores(model, *pair))
        )
        for name, value in (("noise", -noise), ("scores", found), ("both", found - noise / 50)):
            error = degrees.gather(1, value.argmax(1, keepdim=True))
            right = float((error < 15).float().mean())
            typer.echo(
                f"{path.stem}, by {name}: {right:.3f} within 15 degrees, median {float(error.median()):.1f}"
            )
        others = of_others(held["rendered"], held["latents"])
        of_two = torch.cat([scores(model, *(both[i].float() for both in others)) for i in parts])
        accepted, wrongly = (float((values.amax(1) > 0).float().mean()) for values in (found, of_two))
        typer.echo(
            f"{path.stem}: cross-entropy {float(cross_entropy(found, held['errors'])):.3f}; some pose is "
            f"accepted of {accepted:.3f} of the pairs, and of {wrongly:.3f} of those of two objects"
        )


@app.command()
def export(
    out: Out = DEFAULT,
    weights: Annotated[Path, typer.Option(help="Folder of the shipped weights.")] = EMBEDDED_3D_WEIGHTS,
    base: Base = None,
    share: Share = 0.5,
) -> None:
    """Writes the averaged weights as float16 safetensors."""
    mixed(trained(out), base, share).half().save_pretrained(weights / "pose_scorer")
    make_readable(weights)


if __name__ == "__main__":
    app()
