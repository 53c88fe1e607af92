"""Trains smaller networks of the embedded prior on what the larger ones compute.

    python tools/distill_prior.py autoencoder PHOTOS --teacher WEIGHTS --out runs/small
    python tools/distill_prior.py unet PHOTOS --teacher WEIGHTS --out runs/small
    python tools/distill_prior.py export --out runs/small --weights python/latentdem/weights/embedded

`WEIGHTS` is a folder with `autoencoder/` and `unet/`, as `train_prior.py export` writes it. Every training
command resumes from its last checkpoint when started again.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from _data import Photographs
from _muon import Muon, hidden_weights
from _pruning import pruned, pruned_autoencoder
from _training import Trainer, adamw
from torch import Tensor
from train_prior import (
    Minutes,
    Out,
    Photos,
    Steps,
    averaged_weights,
    build_scheduler,
    image_loss,
    make_readable,
    noised,
)

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.loading import load_network
from latentdem.priors.unet import UNet

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Teacher = Annotated[Path, typer.Option(help="Folder of the larger networks.")]
SIZES = (64, 96, 128, 192)  # of crops, in pixels


def overshot(x: Tensor) -> Tensor:
    """Photographs (B, 3, H, W), half of them with noise and edges that overshoot, as from a wrong kernel."""
    strength = 1.5 * torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.5)
    smooth = F.avg_pool2d(F.pad(x, (2,) * 4, mode="reflect"), 5, 1)
    noise = 0.05 * torch.randn_like(x) * torch.rand(len(x), 1, 1, 1)
    return (x + strength * (x - smooth + noise)).clamp(-1, 1)


@app.command()
def autoencoder(
    photos: Photos,
    teacher: Teacher,
    out: Out = Path("runs/small"),
    width: Annotated[int, typer.Option(help="Channels at quarter resolution.")] = 96,
    steps: Steps = 8000,
    batch: int = 32,
    crop: int = 64,
    learning_rate: Annotated[float, typer.Option(help="Of Muon; the other weights take a fifth.")] = 3e-3,
    minutes: Minutes = None,
) -> None:
    """Trains an autoencoder, pruned from the teacher's, to encode and decode as the teacher does.

    The target is what the teacher decodes, not the photograph: a decoder that shows more detail shows more of
    what a wrong kernel does to an image, too.
    """
    large = load_network(EmbeddedAutoencoder, teacher / "autoencoder").to(memory_format=torch.channels_last)
    start = out / "autoencoder" / "start"
    if not start.exists():
        pruned_autoencoder(large, width).save_pretrained(start)
    model = load_network(EmbeddedAutoencoder, start).requires_grad_().train()
    model = model.to(memory_format=torch.channels_last)
    first_and_last = ("encoder.1.", f"encoder.{len(model.encoder) - 1}.", "decoder.0.")
    hidden, others = hidden_weights(model, (*first_and_last, f"decoder.{len(model.decoder) - 2}."))
    optimizers = [Muon(hidden, learning_rate), adamw(others, learning_rate / 5)]
    trainer = Trainer(model, out / "autoencoder", steps=steps, optimizers=optimizers, minutes=minutes)
    data = Photographs(photos, seed=trainer.step)

    def losses(step: int) -> dict[str, Tensor]:
        x = overshot(data.batch(batch, crop))
        with torch.no_grad():
            mean, logvar = large.moments(x)
            noise = torch.randn_like(mean.float()) * (0.5 * logvar.float()).exp()
            wanted, noisy = ((one.float() - large.mean) / large.std for one in (mean, mean + noise))
            image, noisy_image = large.decode(wanted).float(), large.decode(noisy).float()
        z = model.encode(x).float()
        latents = F.mse_loss(z, wanted)
        own, given = model.decode(z).float(), model.decode(noisy).float()
        loss = image_loss(own, image) + image_loss(given, noisy_image) + latents
        return {"loss": loss, "latents": latents, "mse": F.mse_loss(own, image)}

    trainer.run(losses, torch.device("cpu"))


@app.command()
def unet(
    photos: Photos,
    teacher: Teacher,
    out: Out = Path("runs/small"),
    widths: Annotated[str, typer.Option(help="Channels at full, half, ... resolution.")] = "64,96,128",
    steps: Steps = 20000,
    batch: Annotated[int, typer.Option(help="Crops of 96 x 96 per step; larger crops are fewer.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of Muon; the other weights take a fifth.")] = 5e-3,
    truth: Annotated[float, typer.Option(help="Share of the true noise in what is learned.")] = 0.25,
    minutes: Minutes = None,
) -> None:
    """Trains a noise predictor, pruned from the teacher's, on the noise that the teacher predicts."""
    coder = load_network(EmbeddedAutoencoder, teacher / "autoencoder").to(memory_format=torch.channels_last)
    large = load_network(UNet, teacher / "unet").to(memory_format=torch.channels_last)
    start = out / "unet" / "start"
    if not start.exists():
        pruned(large, tuple(map(int, widths.split(",")))).save_pretrained(start)
    model = load_network(UNet, start).requires_grad_().train().to(memory_format=torch.channels_last)
    hidden, others = hidden_weights(model, ("conv_in", "conv_out", "time_embedding"))
    optimizers = [Muon(hidden, learning_rate), adamw(others, learning_rate / 5)]
    trainer = Trainer(
        model, out / "unet", steps=steps, optimizers=optimizers, ema_decay=0.9985, minutes=minutes
    )
    abar, data = build_scheduler().alphas_cumprod, Photographs(photos, seed=trainer.step)
    sizes = random.Random(trainer.step)

    def losses(step: int) -> dict[str, Tensor]:
        size = sizes.choice(SIZES)
        count = max(1, round(batch * (96 / size) ** 2))
        with torch.no_grad():
            z = coder.encode(data.batch(count, size)).float()
            z_t, t, noise = noised(z, abar)
            wanted = large(z_t, t).float()
        predicted = model(z_t, t).float()
        error, distance = F.mse_loss(predicted, noise), F.mse_loss(predicted, wanted)
        loss = truth * error + (1 - truth) * distance
        return {"loss": loss, "error": error, "distance": distance, "teacher": F.mse_loss(wanted, noise)}

    trainer.run(losses, torch.device("cpu"))


@app.command()
def export(
    out: Out = Path("runs/small"),
    weights: Annotated[Path, typer.Option(help="Where the shipped weights go.")] = Path(
        "python/latentdem/weights/embedded"
    ),
) -> None:
    """Writes the exponential moving averages as float16 safetensors."""
    for name, kind in (("autoencoder", EmbeddedAutoencoder), ("unet", UNet)):
        model = load_network(kind, out / name / "start")
        model.load_state_dict(averaged_weights(out / name / "checkpoint.pt"))
        model.half().save_pretrained(weights / name)
    build_scheduler().save_pretrained(weights / "scheduler")
    make_readable(weights)


if __name__ == "__main__":
    app()
