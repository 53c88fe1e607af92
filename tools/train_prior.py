"""Trains the embedded prior: first the autoencoder, then the noise predictor on its latents.

    python tools/train_prior.py autoencoder PHOTOS --out runs/prior
    python tools/train_prior.py unet PHOTOS --out runs/prior
    python tools/train_prior.py export --out runs/prior --weights python/latentdem/weights/embedded

Every training command resumes from its last checkpoint when started again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
import typer
from _data import Photographs
from _training import Trainer
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.loading import load_network
from latentdem.priors.network import Network
from latentdem.priors.unet import UNet

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Photos = Annotated[Path, typer.Argument(help="Folder of photographs.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, curves and sample pictures.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps in total, over all resumed runs.")]
Minutes = Annotated[float | None, typer.Option(help="Time limit, until which the learning rates fall.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Trained = TypeVar("Trained", bound=Network)


def build_unet() -> UNet:
    """The noise predictor: a convolutional U-Net on 8-channel latents, 9.2 M parameters."""
    return UNet(8, 8, block_out_channels=(96, 128, 160), layers_per_block=2, norm_num_groups=16)


def build_scheduler() -> DDPMScheduler:
    """Stable Diffusion's schedule: 1000 steps, scaled-linear betas."""
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def image_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + 0.5 L1 of image differences, of images (B, 3, H, W)."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(differences(y), differences(x), strict=True))
    return F.l1_loss(y, x) + 0.5 * edges


def noised(z: Tensor, abar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, c, h, w) at random timesteps t of the schedule `abar` (1000,): z_t, t (B,) and the noise.

    One t per stratum of the schedule makes the loss vary less between steps than independent draws do.
    """
    strata = (torch.arange(len(z), device=z.device) + torch.rand(len(z), device=z.device)) / len(z)
    t = (strata * len(abar)).long().clamp_max(len(abar) - 1)
    a, noise = abar[t].view(-1, 1, 1, 1), torch.randn_like(z)
    z_t = a.sqrt() * z + (1 - a).sqrt() * noise
    return z_t.contiguous(memory_format=torch.channels_last), t, noise


def autoencoder_losses(model: EmbeddedAutoencoder, x: Tensor, kl_weight: float) -> dict[str, Tensor]:
    """The loss, L1 + 0.5 L1 of image differences + a small KL term, and its terms."""
    mean, logvar = model.moments(x)
    mean, logvar = mean.float(), logvar.float()
    z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
    y = model.decoder(z).float()
    l1 = F.l1_loss(y, x)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {"loss": image_loss(y, x) + kl_weight * kl, "l1": l1, "kl": kl, "mse": F.mse_loss(y, x)}


@torch.no_grad()
def register_statistics(model: EmbeddedAutoencoder, batches: Iterable[Tensor]) -> None:
    """Writes mean and standard deviation of the raw latents of `batches` into the configuration."""
    raw = torch.cat([model.moments(x)[0] for x in batches])
    model.config["latents_mean"] = raw.mean((0, 2, 3)).tolist()
    model.config["latents_std"] = raw.std((0, 2, 3)).tolist()


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The exponential moving averages in a checkpoint of `Trainer`."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["ema"]
    return {k[len("module.") :]: v for k, v in state.items() if k.startswith("module.")}


def averaged(kind: type[Trained], folder: Path) -> Trained:
    """The network that `Trainer` trains in `folder`, with averaged weights, for inference."""
    model = kind.from_config(kind.load_config(folder))
    model.load_state_dict(averaged_weights(folder / "checkpoint.pt"))
    return model.eval()


def make_readable(weights: Path) -> None:
    """Makes weights readable for all users; safetensors creates files that only their owner can read."""
    for path in weights.rglob("*.safetensors"):
        path.chmod(0o644)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    """Tiles images (N, 3, H, W) in [-1, 1] into one PNG."""
    count, _, height, width = images.shape
    tiles = images.reshape(-1, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    grid = tiles.reshape(count // columns * height, columns * width, 3)
    Image.fromarray(((grid.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()).save(path)


@app.command()
def autoencoder(
    photos: Photos,
    out: Out = Path("runs/prior"),
    steps: Steps = 6000,
    batch: int = 32,
    crop: int = 64,
    learning_rate: float = 1e-3,
    kl_weight: float = 1e-4,
    minutes: Minutes = None,
    device: Device = "cpu",
) -> None:
    """Trains the KL autoencoder: L1 + 0.5 L1 of image differences + a small KL term."""
    torch_device = torch.device(device)
    model = EmbeddedAutoencoder().to(torch_device, memory_format=torch.channels_last)
    trainer = Trainer(model, out / "autoencoder", steps=steps, learning_rate=learning_rate, minutes=minutes)
    data = Photographs(photos, seed=trainer.step)

    def loss_fn(step: int) -> dict[str, Tensor]:
        return autoencoder_losses(model, data.batch(batch, crop).to(torch_device), kl_weight)

    trainer.run(loss_fn, torch_device)
    model = trainer.ema.module.eval()
    with torch.no_grad():
        register_statistics(model, (data.batch(8, 128).to(torch_device) for _ in range(64)))
        x = data.batch(8, 128).to(torch_device)
        save_grid(torch.cat([x, model.decoder(model.moments(x)[0])]), out / "autoencoder" / "samples.png", 8)
    model.save_pretrained(out / "autoencoder" / "model")


@app.command()
def unet(
    photos: Photos,
    out: Out = Path("runs/prior"),
    steps: Steps = 30000,
    batch: Annotated[int, typer.Option(help="Crops of 96 x 96 per step; larger crops are fewer.")] = 16,
    learning_rate: float = 5e-4,
    minutes: Minutes = None,
    device: Device = "cpu",
    init: Annotated[Path | None, typer.Option(help="Exported U-Net folder to start from.")] = None,
) -> None:
    """Trains the noise predictor on the latents of the trained autoencoder (noise-prediction loss).

    The crops are 64 to 192 pixels wide, because the network has to work on small and large images.
    """
    torch_device = torch.device(device)
    coder = load_network(EmbeddedAutoencoder, out / "autoencoder" / "model", torch_device)
    coder = coder.to(memory_format=torch.channels_last)
    model = load_network(UNet, init).requires_grad_() if init else build_unet()
    model = model.train().to(torch_device, memory_format=torch.channels_last)
    trainer = Trainer(
        model, out / "unet", steps=steps, learning_rate=learning_rate, ema_decay=0.9995, minutes=minutes
    )
    abar = build_scheduler().alphas_cumprod.to(torch_device)
    data = Photographs(photos, seed=trainer.step)
    sizes = random.Random(trainer.step)

    def loss_fn(step: int) -> dict[str, Tensor]:
        size = sizes.choice((64, 96, 128, 192))
        count = max(1, round(batch * (96 / size) ** 2))
        with torch.no_grad():
            z = coder.encode(data.batch(count, size).to(torch_device)).float()
        z_t, t, noise = noised(z, abar)
        predicted = model(z_t, t).float()
        return {"loss": F.mse_loss(predicted, noise)}

    trainer.run(loss_fn, torch_device)
    model = trainer.ema.module.eval()
    model.save_pretrained(out / "unet" / "model")
    build_scheduler().save_pretrained(out / "unet" / "scheduler")
    save_grid(sample(model, coder, torch_device), out / "unet" / "samples.png", 4)


@torch.no_grad()
def sample(model: UNet, coder: EmbeddedAutoencoder, torch_device: torch.device, steps: int = 50) -> Tensor:
    """Eight unconditional 128 x 128 samples by DDIM, for inspection."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(build_scheduler().config)
    scheduler.set_timesteps(steps)
    z = torch.randn(8, 8, 32, 32, generator=torch.Generator().manual_seed(0)).to(torch_device)
    for t in scheduler.timesteps:
        z = scheduler.step(model(z, t), t, z).prev_sample
    return coder.decode(z)


@app.command()
def export(
    out: Out = Path("runs/prior"),
    weights: Annotated[Path, typer.Option(help="Where the shipped weights go.")] = Path(
        "python/latentdem/weights/embedded"
    ),
) -> None:
    """Writes the exponential moving averages as float16 safetensors, in the layout that ships."""
    coder = load_network(EmbeddedAutoencoder, out / "autoencoder" / "model")
    model = build_unet()
    model.load_state_dict(averaged_weights(out / "unet" / "checkpoint.pt"))
    coder.half().save_pretrained(weights / "autoencoder")
    model.half().save_pretrained(weights / "unet")
    build_scheduler().save_pretrained(weights / "scheduler")
    make_readable(weights)
    total = sum(p.numel() for m in (coder, model) for p in m.parameters())
    typer.echo(f"Wrote {total / 1e6:.2f} M parameters to {weights}.")


if __name__ == "__main__":
    app()
