"""Trains the network that estimates how high a camera was, and where a crop shows the middle of an object.

    python tools/train_framing.py render --out runs/framing
    python tools/train_framing.py render --out runs/framing --meshes OBJECTS --photos PHOTOS
    python tools/train_framing.py train --out runs/framing --views runs/views
    python tools/train_framing.py evaluate --out runs/framing --views runs/views
    python tools/train_framing.py export --out runs/framing

The first renders procedural objects, the second objects in files. `render` and `train` resume where they
stopped when they are started again. Needs `pip install "latentdem[three-d]"`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import typer
from _mesh_scenes import Meshes, as_in_file, random_mesh_scene
from _training import Trainer
from _views import Shown, fill, procedural
from PIL import Image
from torch import Tensor
from torch.optim import AdamW
from tqdm import tqdm
from train_prior import Device, Minutes, Out, Steps, averaged, make_readable

from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, RADIUS, random_cameras
from latentdem.three_d.pictures import FILLED, SEEN, Crops
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.framing import DEVIATIONS, MIRRORED, Framing, standardised
from latentdem.three_d.synthetic.render import render as render_scene
from latentdem.three_d.synthetic.scenes import HELD_OUT

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
DEFAULT = Path("runs/framing")
RENDERED = 128  # pixels along one side of the renderings before cropping
SMALLEST = 0.65  # smallest scale of an object whose crop shares its scale with a larger view
SHOWN = 32  # crops in the figure
TOOLS = {"crops": "train_framing.py", "views": "train_view_prior.py"}  # which renders what

Weights = Annotated[Path, typer.Option(help="Folder of the prior.")]
RenderedViews = Annotated[
    Path | None, typer.Option(help="Folder of train_view_prior.py render, whose views are learnt as well.")
]


def crops_of(seed: int, make: Callable[[int], Shown], views: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops (views, 2, size, size, 3) uint8 of the object of a seed, and their cameras (views, 2, 5).

    The second crop of each view has a smaller scale. Distances are absolute, not less `RADIUS`.
    """
    torch.set_num_threads(1)
    (scene, light), cameras = make(seed), random_cameras(views, torch.Generator().manual_seed(seed))
    scales = np.random.default_rng(seed).uniform(SMALLEST, 1, views).tolist()
    pictures, crop_cameras = [], []
    for picture, camera, scale in zip(
        render_scene(scene, cameras, RENDERED, light), cameras, scales, strict=True
    ):
        crops = Crops([Image.fromarray(picture, "RGBA")], size, [str(seed)])
        first = camera_of_crop(camera, picture[..., 3] > 255 * SEEN)
        zoom = torch.tensor([0.0, 0.0, RADIUS * (scale - 1), 0.0, 0.0])
        second = first / torch.tensor([1.0, 1.0, scale, 1.0, 1.0])
        pictures.append([crops.pictures()[0].pixels[0], crops.framed(zoom[None]).pictures()[0].pixels[0]])
        crop_cameras.append(torch.stack([first, second]))
    stacked = torch.stack([torch.stack(pair) for pair in pictures]).movedim(2, -1)
    return ((stacked + 1) * 127.5).round().byte().numpy(), torch.stack(crop_cameras).numpy()


def camera_of_crop(camera: Tensor, mask: np.ndarray) -> Tensor:
    """Camera (5,) of the crop that `Crops` makes of a rendering from `camera` (3,).

    Args:
        camera: (3,) camera of the rendering.
        mask: (S, S) whether each pixel of the rendering shows the object.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    middles = [(line[0] + line[-1] + 1) / 2 for line in (rows, columns)]
    longest = max(line[-1] + 1 - line[0] for line in (rows, columns))
    size, distance = len(mask), float(camera[2])
    pixel = 2 * distance * math.tan(FIELD_OF_VIEW / 2) / size  # in the world, at the origin
    right, up = (size / 2 - middles[1]) * pixel, (middles[0] - size / 2) * pixel
    values = [camera[0], camera[1], distance * longest / FILLED / size, right, up]
    return torch.tensor(values, dtype=torch.float32)


@app.command()
def render(
    out: Out = DEFAULT,
    objects: int = 16000,
    views: Annotated[int, typer.Option(help="Random cameras per object.")] = 6,
    held_out: Annotated[int, typer.Option(help="Objects for the evaluation.")] = 320,
    size: Annotated[int, typer.Option(help="Pixels along one side of a crop.")] = 64,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
    meshes: Annotated[
        Path | None, typer.Option(help="Folder of GLB, OBJ or PLY files to make objects of.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Photographs that are printed on meshes.")] = None,
) -> None:
    """Renders the objects and crops them once, 2.4 GB: crops.npy as uint8 on white, and cameras.npy."""

    def write(name: str, make: Callable[[int], Shown], seeds: Sequence[int]) -> None:
        crops, cameras = ((views, 2, size, size, 3), np.uint8), ((views, 2, 5), np.float32)
        one = partial(crops_of, make=make, views=views, size=size)
        fill(out / name, one, seeds, workers, crops=crops, cameras=cameras)

    if meshes is None:
        write("held_out", procedural, range(HELD_OUT, HELD_OUT + held_out))
        write("train", procedural, range(objects))
        return
    train, kept = Meshes.split(meshes)
    write("held_out_meshes", partial(as_in_file, kept), range(len(kept.names)))
    write("train_meshes", partial(random_mesh_scene, train, photos), range(objects))


class CropData:
    """What the encoder of the prior sees in views and crops, and the values to be estimated, in memory.

    The features of a picture take 20 kB. A picture or its mirror image is encoded, by chance.

    Args:
        prior: embedded prior.
        folders: folders that `render` or `train_view_prior.py render` has written; the pictures of all are
            drawn alike.
    """

    def __init__(self, prior: EmbeddedViewPrior, *folders: Path) -> None:
        features, targets = [], []
        for folder in folders:
            pictures, cameras = read(folder)
            mirrored = torch.rand(len(pictures)) < 0.5
            for rows in tqdm(torch.arange(len(pictures)).split(64), folder.name, mininterval=5):
                x, turned = images(pictures[rows]), mirrored[rows]
                x[turned] = x[turned].flip(-1)
                features.append(prior.overview(x.to(prior.device)).half().cpu())
            values = standardised(cameras)
            targets.append(torch.where(mirrored[:, None], values * values.new_tensor(MIRRORED), values))
        self.features, self.targets = torch.cat(features), torch.cat(targets)


def training_folders(top: Path) -> list[Path]:
    """Folders of rendered training objects; a SystemExit if there are none."""
    folders = [top / name for name in ("train", "train_meshes") if (top / name).exists()]
    if not folders:
        raise SystemExit(f"No training objects in {top}; check the name, or run the command `render` first.")
    return folders


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (N, S, S, 3) uint8 and cameras (N, 5) of a folder; views are crops whose middle is known."""
    name = next((name for name in ("crops", "views") if (folder / f"{name}.npy").exists()), None)
    if name is None:
        raise SystemExit(f"No crops in {folder}; run `train_framing.py render` first.")
    cameras, tool = torch.from_numpy(np.load(folder / "cameras.npy")), TOOLS[name]
    if cameras.isnan().any():
        raise SystemExit(f"Some {name} are missing in {folder}; run `{tool} render` to the end first.")
    cameras = F.pad(cameras, (0, 5 - cameras.shape[-1])).flatten(0, -2)
    return torch.from_numpy(np.load(folder / f"{name}.npy")).flatten(0, -4), cameras


def images(pictures: Tensor) -> Tensor:
    """Pictures (N, S, S, 3) uint8 as (N, 3, S, S) in [-1, 1]."""
    return pictures.movedim(-1, 1).float() / 127.5 - 1


def likelihood(model: Framing, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Negative log-likelihood of Gaussian estimates as the loss (Nix and Weigend 1994), and the squared error.

    Args:
        model: the network.
        x: (N, c, s, s) features of the encoder.
        targets: (N, 4) true values.
    """
    with torch.autocast(x.device.type, enabled=False):  # conversion would take longer for such a small network
        means, log_variances = model(x)
        loss = F.gaussian_nll_loss(means, targets, log_variances.exp())
    return {"loss": loss, "squared": F.mse_loss(means, targets)}


@app.command()
def train(
    out: Out = DEFAULT,
    steps: Steps = 3500,
    batch: int = 384,
    learning_rate: float = 2e-3,
    minutes: Minutes = None,
    views: RenderedViews = None,
    weights: Weights = EMBEDDED_3D_WEIGHTS,
    device: Device = "cpu",
) -> None:
    """Trains the network and evaluates it."""
    place, prior = torch.device(device), EmbeddedViewPrior.from_pretrained(weights, device)
    torch.manual_seed(0)
    data = CropData(prior, *training_folders(out), *(training_folders(views) if views else ()))
    model = Framing(*data.features.shape[1:3])
    model.save_config(out / "network")
    model = model.train().to(place)
    optimizer = AdamW(model.parameters(), lr=learning_rate, weight_decay=0.1, fused=True)
    trainer = Trainer(
        model, out / "network", steps=steps, optimizers=[optimizer], ema_decay=0.99, minutes=minutes
    )
    torch.manual_seed(trainer.step)

    def loss_fn(step: int) -> dict[str, Tensor]:
        rows = torch.randint(len(data.features), (batch,))
        return likelihood(model, data.features[rows].to(place).float(), data.targets[rows].to(place))

    trainer.run(loss_fn, place)
    evaluate(out, views, weights, device)


def trained(out: Path) -> Framing:
    """The trained network with averaged weights."""
    return averaged(Framing, out / "network")


@app.command()
@torch.no_grad()
def evaluate(
    out: Out = DEFAULT,
    views: RenderedViews = None,
    weights: Weights = EMBEDDED_3D_WEIGHTS,
    device: Device = "cpu",
) -> None:
    """Errors on crops and views of held-out objects, compared with no estimate, and a figure of some each."""
    prior = EmbeddedViewPrior.from_pretrained(weights, device)
    model = trained(out).to(device).requires_grad_(False)
    for top, which in ((out, "crops"), (views, "views")):
        for name in ("held_out", "held_out_meshes"):
            if top and (top / name).exists():
                typer.echo(f"{which} of {name}:")
                _evaluate(prior, model, top / name, out / "network" / f"{name}_{which}.png")


def _evaluate(prior: EmbeddedViewPrior, model: Framing, folder: Path, figure_path: Path) -> None:
    pictures, true = read(folder)
    targets = standardised(true)
    usual = torch.tensor([0.0, 0.0, RADIUS, 0.0, 0.0])
    parts = [images(part).to(prior.device) for part in pictures.split(64)]
    found = [model.cameras(prior.overview(x), prior.overview(x.flip(-1)))[0].cpu() for x in parts]
    estimates = standardised(torch.cat(found) + usual)
    pixels = pictures.shape[1] / (2 * RADIUS * math.tan(FIELD_OF_VIEW / 2))
    units = torch.tensor(DEVIATIONS) * torch.tensor([180 / math.pi, 100, pixels, pixels])
    for name, estimate in (("estimated", estimates), ("not estimated", torch.zeros_like(estimates))):
        errors = (estimate - targets) * units
        polar, distance, right, up = errors.square().mean(0).sqrt().tolist()
        median = float(errors[:, 0].abs().median())
        typer.echo(
            f"{name}: {right:.2f} and {up:.2f} pixels to the right and upwards, {distance:.1f} % of the "
            f"distance, {polar:.1f} degrees of polar angle (root mean square; median {median:.1f})"
        )
    shown = torch.arange(SHOWN) * (len(estimates) // SHOWN)
    figure, axes = plt.subplots(4, SHOWN // 4, figsize=(SHOWN // 2, 8.5), layout="constrained")
    for axis, row in zip(axes.flat, shown.tolist(), strict=True):
        axis.imshow(pictures[row].numpy())
        axis.set_axis_off()
        for estimate, marker, colour in ((targets, "+", "black"), (estimates, "x", "red")):
            right, up = (estimate[row, 2:] * units[2:]).tolist()
            middle = (pictures.shape[1] - 1) / 2
            axis.plot(middle + right, middle - up, marker, color=colour, markersize=10)
    figure.suptitle("black: the true middle of the object; red: estimated")
    figure.savefig(figure_path)
    plt.close(figure)


@app.command()
def export(
    out: Out = DEFAULT,
    weights: Annotated[Path, typer.Option(help="Folder of the shipped weights.")] = EMBEDDED_3D_WEIGHTS,
) -> None:
    """Writes the averaged weights as float16 safetensors beside those of the prior."""
    trained(out).half().save_pretrained(weights / "framing")
    make_readable(weights / "framing")


if __name__ == "__main__":
    app()
