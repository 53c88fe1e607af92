"""Trains the embedded view-conditioned prior on renderings of procedural objects.

    python tools/train_view_prior.py render --out runs/views
    python tools/train_view_prior.py autoencoder --out runs/views
    python tools/train_view_prior.py network --out runs/views
    python tools/train_view_prior.py evaluate --out runs/views
    python tools/train_view_prior.py export --out runs/views

Every command resumes where it stopped when it is started again. Needs `pip install "latentdem[three-d]"`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
import typer
from _mesh_scenes import Meshes, as_in_file, random_mesh_scene
from _muon import Muon, hidden_weights
from _training import Trainer, adamw
from _view_step import ViewStep
from _views import Views, procedural, render_views
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from train_prior import (
    Device,
    Minutes,
    Out,
    Steps,
    autoencoder_losses,
    averaged_weights,
    build_scheduler,
    make_readable,
    register_statistics,
    save_grid,
)

from latentdem.priors import EMBEDDED_WEIGHTS
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.loading import load_network
from latentdem.priors.network import Network
from latentdem.priors.parametrization import Parametrization
from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.network import ViewNetwork
from latentdem.three_d.synthetic.scenes import HELD_OUT

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Batch = Annotated[int, typer.Option(help="Known views in a step, for either kind of group.")]
Rate = Annotated[float, typer.Option(help="Learning rate of Muon, which trains the hidden weights.")]
Init = Annotated[Path | None, typer.Option(help="Exported network to start from.")]
Denoised = Annotated[float, typer.Option(help="Share of these views with a loss of v, a third of the time.")]
Base = Annotated[Path | None, typer.Option(help="Exported network to mix with.")]
Share = Annotated[float, typer.Option(help="Share of the trained weights in the mixture.")]
Targets = Annotated[int, typer.Option(help="Views that are predicted from each known view.")]
BANDS = 5  # ranges of timesteps in the evaluation
ADAM_RATE = 0.1  # learning rate of AdamW, which trains the other weights, in units of that of Muon
MESHES = 0.6  # share of meshes among the objects of a step, if meshes are rendered
Learnt = TypeVar("Learnt", bound=Network)
ENDS = (
    *("encoder.conv_in", "encoder.conv_out", "polar", "flatten.4", "unet.conv_in", "unet.conv_out"),
    *("exchange.own", "exchange.others", "exchange.correction"),
)


def training_views(out: Path, place: torch.device) -> Views:
    """Rendered procedural objects and, if there are any, meshes."""
    if not (out / "train_meshes").exists():
        return Views(out / "train", device=place)
    return Views(out / "train", out / "train_meshes", shares=(1 - MESHES, MESHES), device=place)


def schedule() -> DDPMScheduler:
    """Stable Diffusion's schedule, predicting v: noise says little about z0 at the first steps."""
    return DDPMScheduler.from_config(build_scheduler().config, prediction_type="v_prediction")


@app.command()
def render(
    out: Out = Path("runs/views"),
    objects: int = 20000,
    views: Annotated[int, typer.Option(help="Random cameras per object.")] = 12,
    held_out: Annotated[int, typer.Option(help="Objects for the evaluation.")] = 64,
    size: int = 64,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
    first: Annotated[int, typer.Option(help="Seed of the first object.")] = 0,
    meshes: Annotated[
        Path | None, typer.Option(help="Folder of GLB, OBJ or PLY files to make objects of.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Photographs that are printed on meshes.")] = None,
) -> None:
    """Renders the objects once, into `views.npy` as uint8 on white."""
    rendering = {"views": views, "size": size, "workers": workers}
    if meshes is None:
        render_views(out / "held_out", procedural, range(HELD_OUT, HELD_OUT + held_out), **rendering)
        render_views(out / "train", procedural, range(first, first + objects), **rendering)
        return
    train, kept = Meshes.split(meshes)
    render_views(out / "held_out_meshes", partial(as_in_file, kept), range(len(kept.names)), **rendering)
    make = partial(random_mesh_scene, train, photos)
    render_views(out / "train_meshes", make, range(first, first + objects), **rendering)


@app.command()
def autoencoder(
    out: Out = Path("runs/views"),
    steps: Steps = 4000,
    batch: int = 32,
    learning_rate: float = 6e-4,
    kl_weight: float = 1e-4,
    minutes: Minutes = None,
    device: Device = "cpu",
) -> None:
    """Trains the autoencoder, starting from that of the prior for photographs."""
    place = torch.device(device)
    model = load_network(EmbeddedAutoencoder, EMBEDDED_WEIGHTS / "autoencoder").requires_grad_()
    model = model.train().to(place, memory_format=torch.channels_last)
    trainer = Trainer(model, out / "autoencoder", steps=steps, learning_rate=learning_rate, minutes=minutes)
    torch.manual_seed(trainer.step)
    data = training_views(out, place)
    trainer.run(lambda step: autoencoder_losses(model, data.batch(batch), kl_weight), place)
    model = trainer.ema.module.eval()
    register_statistics(model, (data.batch(batch) for _ in range(64)))
    with torch.no_grad():
        x = Views(out / "held_out", device=place).batch(64)
        y = model.decoder(model.moments(x)[0]).clamp(-1, 1)
    save_grid(torch.cat([x[:16], y[:16]]), out / "autoencoder" / "samples.png", 16)
    typer.echo(f"{psnr(y, x).mean():.2f} dB on 64 held-out views")
    model.save_pretrained(out / "autoencoder" / "model")


def muon_and_adamw(model: nn.Module, ends: Sequence[str], rate: float, adam_rate: float) -> list[Optimizer]:
    """Muon for the hidden weights, AdamW for all others and for layers whose names begin with one of `ends`."""
    hidden, others = hidden_weights(model, ends)
    return [Muon(hidden, rate), adamw(others, adam_rate)]


def load_autoencoder(out: Path) -> EmbeddedAutoencoder:
    return load_network(EmbeddedAutoencoder, out / "autoencoder" / "model")


@app.command()
def network(
    out: Out = Path("runs/views"),
    steps: Steps = 10000,
    batch: Batch = 12,
    targets: Targets = 3,
    rate: Rate = 0.01,
    minutes: Minutes = None,
    device: Device = "cpu",
    init: Init = None,
    denoised: Denoised = 1.0,
) -> None:
    """Trains the network and evaluates it. Objects that are rendered in the meantime are used, too."""
    place = torch.device(device)
    coder = load_autoencoder(out).to(place, memory_format=torch.channels_last)
    data, levels = training_views(out, place), schedule().alphas_cumprod.to(place)
    torch.manual_seed(0)
    if init is None:
        size = data.pictures.shape[2] // coder.downsampling
        model = ViewNetwork(coder.config["latent_channels"], size, coder.downsampling)
    else:
        model = load_network(ViewNetwork, init).requires_grad_()
    model.save_config(out / "network")
    model = model.train().to(place).channels_last()
    optimizers = muon_and_adamw(model, ENDS, rate, ADAM_RATE * rate)
    trainer = Trainer(
        model,
        out / "network",
        steps=steps,
        ema_decay=0.998,
        optimizers=optimizers,
        minutes=minutes,
        save_every=200,
    )
    torch.manual_seed(trainer.step)
    torch.backends.cudnn.benchmark = True

    losses = ViewStep(model, data, coder, levels, batch, targets, denoised)

    def loss_fn(step: int) -> dict[str, Tensor]:
        if step % 100 == 0:
            data.update()
        return losses(step)

    trainer.run(loss_fn, place)
    typer.echo(f"{data.count} objects")
    evaluate(out, device=device)


def load_prior(out: Path, place: torch.device) -> EmbeddedViewPrior:
    """The prior at its current state of training, with averaged weights."""
    coder = load_autoencoder(out).to(place)
    model = trained_network(out).to(place)
    half = torch.bfloat16
    return EmbeddedViewPrior(coder, model, Parametrization.of(schedule()), autocast=half)


def trained_network(out: Path) -> ViewNetwork:
    """The trained network with averaged weights."""
    model = ViewNetwork.from_config(ViewNetwork.load_config(out / "network"))
    model.load_state_dict(averaged_weights(out / "network" / "checkpoint.pt"))
    return model


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR (N,) of images (N, 3, S, S) in [-1, 1]."""
    return 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))


@app.command()
def evaluate(
    out: Out = Path("runs/views"),
    pairs: Annotated[int, typer.Option(help="Pairs of views of held-out objects, of either kind.")] = 64,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    device: Device = "cpu",
) -> None:
    """Noise loss in each fifth of the timesteps and PSNR of new views, on held-out objects (evaluation.csv)."""
    place = torch.device(device)
    prior = load_prior(out, place)
    step = torch.load(out / "network" / "checkpoint.pt", map_location="cpu", weights_only=True)["step"]
    for name in ("held_out", "held_out_meshes"):
        if (out / name).exists():
            _evaluate(prior, Views(out / name), pairs, steps, out / "network", name, step)


@torch.no_grad()
def _evaluate(
    prior: EmbeddedViewPrior, data: Views, pairs: int, steps: int, folder: Path, name: str, step: int
) -> None:
    """Adds a row to evaluation.csv, and shows the known views, the wanted ones and the predictions of pairs."""
    place = prior.device
    generator = torch.manual_seed(0)
    objects, known, targets = data.groups(pairs, 1)
    target = targets[:, 0]
    x, truth = (data.images(objects, views).to(place) for views in (known, target))
    pose = relative_pose(data.cameras[objects, target], data.cameras[objects, known]).to(place)
    condition, z, levels = prior.condition(x), prior.encode(truth), prior.alphas_cumprod
    posed = prior.posed(condition, pose)
    polar = condition.polar
    assert polar is not None
    row: dict[str, float] = {}
    for band in range(BANDS):
        t = (2 * band + 1) * len(levels) // (2 * BANDS)
        noise = torch.randn(z.shape, generator=generator).to(place)
        z_t = levels[t].sqrt() * z + (1 - levels[t]).sqrt() * noise
        row[f"noise_{t}"] = float(F.mse_loss(prior.predict_noise(z_t, t, posed), noise))
    z = torch.randn(z.shape, generator=generator).to(place)
    ddim = DDIMScheduler.from_config(build_scheduler().config)
    ddim.set_timesteps(steps)
    for t in ddim.timesteps:
        z = ddim.step(prior.predict_noise(z, int(t), posed), t, z).prev_sample
    y = prior.decode(z).clamp(-1, 1)
    row["psnr"] = float(psnr(y, truth).mean())
    estimate = prior.network.estimate(posed.parts[0])[0]
    row["psnr_estimate"] = float(psnr(prior.decode(estimate).clamp(-1, 1), truth).mean())
    angles = data.cameras[objects, known, 0].to(place)
    row["polar_error"] = float((polar - angles).abs().mean().rad2deg())
    row["psnr_white"] = float(psnr(torch.ones_like(truth), truth).mean())
    row["psnr_known"] = float(psnr(x, truth).mean())
    path = folder / "evaluation.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "objects", *row])
        writer.writerow([step, name, *(round(value, 4) for value in row.values())])
    typer.echo(f"step {step}, {name}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items()))
    shown = min(16, pairs)
    save_grid(torch.cat([x[:shown], truth[:shown], y[:shown]]), folder / f"samples_{name}.png", shown)


@app.command()
def export(
    out: Out = Path("runs/views"),
    weights: Annotated[Path, typer.Option(help="Folder of the shipped weights.")] = EMBEDDED_3D_WEIGHTS,
    base: Base = None,
    share: Share = 0.5,
) -> None:
    """Writes the exponential moving averages as float16 safetensors, in the layout that ships."""
    coder, model = load_autoencoder(out), mixed(trained_network(out), base, share)
    coder.half().save_pretrained(weights / "autoencoder")
    model.half().save_pretrained(weights / "network")
    schedule().save_pretrained(weights / "scheduler")
    make_readable(weights)
    total = sum(p.numel() for m in (coder, model) for p in m.parameters())
    typer.echo(f"Wrote {total / 1e6:.2f} M parameters to {weights}.")
    others = [name for name in ("framing", "occupancy", "pose_scorer") if (weights / name).exists()]
    if others:
        typer.echo(f"What is in {', '.join(others)} was trained with another network; train it again.")


def mixed(model: Learnt, base: Path | None, share: float) -> Learnt:
    """`model`, of whose weights and statistics only `share` counts beside an exported network of its kind.

    A mixture with the network that the training started from keeps more of what that one could do (Wortsman et
    al. 2022, *Robust fine-tuning of zero-shot models*).
    """
    if base is not None:
        others = load_network(type(model), base).state_dict()
        for name, own in model.state_dict().items():
            own.copy_(torch.lerp(others[name].float(), own.float(), share))
    return model


if __name__ == "__main__":
    app()
