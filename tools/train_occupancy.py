"""Trains the network that estimates the volume of an object, with the embedded view-conditioned prior.

    python tools/train_view_prior.py render --out runs/views
    python tools/train_view_prior.py render --out runs/views --meshes OBJECTS --photos PHOTOS
    python tools/train_occupancy.py train --out runs/views
    python tools/train_occupancy.py evaluate --out runs/views
    python tools/train_occupancy.py export --out runs/views

`train` continues where it stopped. Needs `pip install "latentdem[three-d]"`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
import typer
from _several_views import MISPLACED
from _training import Trainer
from _views import Views
from torch import Tensor
from torch.optim import AdamW
from train_prior import Device, Minutes, Out, Steps, averaged, make_readable
from train_view_prior import training_views

from latentdem.three_d.geometry.cameras import POLAR_RANGE, grid_points
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.network import FeatureVolume
from latentdem.three_d.priors.occupancy import GRID, Occupancy

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
DEFAULT = Path("runs/views")
KNOWN = (1, 2, 2, 2, 3)  # numbers of known views, drawn alike
RAISED = 0.5  # share of the error of estimated heights that all views have, in half of the cases
OVERLAP = 0.25  # weight of the intersection over union in the loss
LEVELS = (0.2, 0.3, 0.4, 0.5)  # probabilities above which a point counts as inside in the evaluation
PAIRS = 104  # pairs of views in the evaluation

Weights = Annotated[Path, typer.Option(help="Folder of the prior.")]


class Known(NamedTuple):
    """What is known at the points of grids around N objects, and what is true.

    Attributes:
        x, logits: see `Occupancy.known_at`.
        inside: (N, G, G, G) share of each point's surroundings that the object fills.
    """

    x: Tensor
    logits: Tensor
    inside: Tensor


@torch.no_grad()
def draw(
    data: Views, prior: EmbeddedViewPrior, model: Occupancy, objects: Tensor, known: int, exact: bool = False
) -> Known:
    """Random known views of objects, which are turned around the vertical axis, as the network sees them.

    As in a reconstruction, polar angles have an error that all views share, and some poses are slightly wrong.

    Args:
        data: renderings.
        prior: embedded prior.
        model: the network.
        objects: (N,) numbers of the objects.
        known: number of views n.
        exact: whether the true cameras are known.
    """
    count, device = len(objects), objects.device
    views = torch.rand(count, data.pictures.shape[1], device=device).argsort(1)[:, :known]
    cameras = data.cameras[objects[:, None], views]
    turn = 2 * math.pi * torch.rand(count, 1, device=device)
    condition = prior.condition(data.images(objects[:, None], views).flatten(0, 1))
    assert condition.polar is not None
    polar, azimuth, distance = (cameras + F.pad(turn[..., None], (1, 1))).unbind(-1)
    if not exact:
        wrong = (condition.polar.view(count, known) - polar).mean(1, keepdim=True)
        raised = RAISED * wrong * _half(count, 1, device)
        moved = MISPLACED * torch.randn(2, count, known, device=device) * _half(count, known, device)
        moved[..., 0] = 0
        polar, azimuth = (polar + raised + moved[0]).clamp(*POLAR_RANGE), azimuth + moved[1]
    points = grid_points(GRID).to(cameras).expand(count, -1, -1, -1, -1)
    x, logits = model.known_at(
        FeatureVolume(*condition.parts), torch.stack([polar, azimuth, distance], -1), points
    )
    return Known(x, logits, data.inside(objects, _turned(points, -turn[:, 0])))


def _half(rows: int, columns: int, device: torch.device) -> Tensor:
    return (torch.rand(rows, columns, device=device) < 0.5).float()


def _turned(points: Tensor, angles: Tensor) -> Tensor:
    """Points (N, ..., 3), turned by angles (N,) from the x axis towards the y axis."""
    angles = angles.view(-1, *[1] * (points.ndim - 2))
    (x, y, z), cosine, sine = points.unbind(-1), angles.cos(), angles.sin()
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1)


def losses_of(logits: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, and 1 less the intersection over union of every object, for probabilities.

    The latter counts each object alike, however small or thin; Rahman and Wang 2016, *Optimizing
    intersection-over-union in deep neural networks for image segmentation*.

    Args:
        logits, inside: (N, G, G, G).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, inside)
    found, true = torch.sigmoid(logits).flatten(1), inside.flatten(1)
    common = (found * true).sum(1)
    overlap = 1 - ((common + 1) / ((found + true).sum(1) - common + 1)).mean()
    return {"loss": entropy + OVERLAP * overlap, "entropy": entropy, "overlap": overlap}


@app.command()
def train(
    out: Out = DEFAULT,
    steps: Steps = 3000,
    batch: int = 6,
    learning_rate: float = 3e-3,
    minutes: Minutes = None,
    weights: Weights = EMBEDDED_3D_WEIGHTS,
    device: Device = "cpu",
) -> None:
    """Trains the network and evaluates it."""
    place = torch.device(device)
    prior, data = EmbeddedViewPrior.from_pretrained(weights, place), training_views(out, place)
    torch.manual_seed(0)
    model = Occupancy(prior.network.config["volume_features"])
    model.save_config(out / "occupancy")
    model = model.train().to(place)
    optimizer = AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, fused=True)
    trainer = Trainer(
        model, out / "occupancy", steps=steps, optimizers=[optimizer], ema_decay=0.99, minutes=minutes
    )
    torch.manual_seed(trainer.step)

    def loss_fn(step: int) -> dict[str, Tensor]:
        if step % 100 == 0:
            data.update()
        known = KNOWN[int(torch.randint(len(KNOWN), ()))]
        drawn = draw(data, prior, model, data.draw(batch), known)
        return losses_of(model(drawn.x, drawn.logits), drawn.inside)

    trainer.run(loss_fn, place)
    evaluate(out, weights, device)


def trained(out: Path) -> Occupancy:
    """The trained network with averaged weights."""
    return averaged(Occupancy, out / "occupancy")


@app.command()
@torch.no_grad()
def evaluate(out: Out = DEFAULT, weights: Weights = EMBEDDED_3D_WEIGHTS, device: Device = "cpu") -> None:
    """Intersection over union of held-out objects, by two views in true poses and at several levels."""
    place = torch.device(device)
    prior, model = EmbeddedViewPrior.from_pretrained(weights, place), trained(out).to(place)
    for name in ("held_out", "held_out_meshes"):
        if not (out / name).exists():
            continue
        data = Views(out / name, device=place)
        torch.manual_seed(0)
        rows: dict[str, list[Tensor]] = {"opacity": [], "estimated": []}
        for objects in torch.arange(PAIRS, device=place).remainder(data.count).split(8):
            drawn = draw(data, prior, model, objects, 2, exact=True)
            rows["opacity"].append(overlaps(drawn.logits, drawn.inside))
            rows["estimated"].append(overlaps(model(drawn.x, drawn.logits), drawn.inside))
        for which, found in rows.items():
            means = torch.cat(found, 1).mean(1).tolist()
            levels = (f"{mean:.3f} ({level})" for mean, level in zip(means, LEVELS, strict=True))
            typer.echo(f"{name}, {which}: {', '.join(levels)}")


def overlaps(logits: Tensor, inside: Tensor) -> Tensor:
    """Intersection over union (L, N) of the points above each of `LEVELS` with those inside."""
    found, true = torch.sigmoid(logits), inside.flatten(1) > 0.5
    rows = []
    for level in LEVELS:
        above = found.flatten(1) > level
        rows.append((above & true).sum(1) / (above | true).sum(1).clamp_min(1))
    return torch.stack(rows)


@app.command()
def export(out: Out = DEFAULT, weights: Weights = EMBEDDED_3D_WEIGHTS) -> None:
    """Writes the averaged weights as float16 safetensors beside those of the prior."""
    trained(out).half().save_pretrained(weights / "occupancy")
    make_readable(weights / "occupancy")


if __name__ == "__main__":
    app()
