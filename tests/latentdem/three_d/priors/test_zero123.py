"""Zero123 with tiny random networks, against a direct computation through the modules."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentdem.errors import UserError
from latentdem.three_d.priors.base import ViewPrior
from latentdem.three_d.priors.loading import load_view_prior
from latentdem.three_d.priors.zero123 import Zero123Prior

from ...payloads import WRITERS, Payload
from ...priors.conftest import in_cache, tiny_unet
from ...priors.original_layout import save_as_lightning
from ..conftest import Networks

SIZE = 16
CPU = torch.device("cpu")


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Two known views, noisy latents and poses."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, SIZE, SIZE, generator=generator) * 2 - 1
    z_t = torch.randn(2, 4, 8, 8, generator=generator)
    pose = torch.tensor([[0.2, 2.5, 0.1], [-0.4, -1.0, 0.0]])
    return x.to(dtype), z_t.to(dtype), pose.to(dtype)


def direct(networks: Networks, x: Tensor, z_t: Tensor, t: int, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of the U-Net without and with the known views, computed step by step as in the published code."""
    pixels = F.interpolate(x, (28, 28), mode="bicubic", align_corners=True) * 0.5 + 0.5
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    embedding = networks.image_encoder((pixels - mean) / std).image_embeds
    polar, azimuth, radius = pose.T
    embedded = torch.stack([polar, torch.sin(azimuth), torch.cos(azimuth), radius], dim=1)
    token = networks.projection(torch.cat([embedding, embedded], dim=1)).unsqueeze(1)
    latent = networks.vae.encode(x).latent_dist.mode()
    unknown = networks.unet(torch.cat([z_t, 0 * latent], 1), t, 0 * token).sample
    return unknown, networks.unet(torch.cat([z_t, latent], 1), t, token).sample


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_noise_is_that_of_the_modules(zero123: Path, networks: Networks, guidance: float) -> None:
    prior = Zero123Prior.from_pretrained(zero123, image_size=SIZE, guidance=guidance)
    x, z_t, pose = inputs()
    noise = prior.predict_noise(z_t, 400, prior.posed(prior.condition(x), pose))
    with torch.no_grad():
        unknown, known = direct(networks, x, z_t, 400, pose)
    assert not torch.allclose(unknown, known, atol=1e-2)
    torch.testing.assert_close(noise, unknown + guidance * (known - unknown), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior.alphas_cumprod, networks.scheduler.alphas_cumprod)


def test_members_and_shapes(zero123: Path, networks: Networks) -> None:
    prior = Zero123Prior.from_pretrained(zero123, image_size=SIZE)
    assert isinstance(prior, ViewPrior)
    assert (prior.name, prior.guidance) == (str(zero123), 3.0)
    assert prior.latent_shape == (4, 8, 8)
    trained = (prior.latents.vae, prior.unet, prior.image_encoder, prior.projection)
    assert not any(p.requires_grad for network in trained for p in network.parameters())
    x, z_t, pose = inputs()
    factor = networks.vae.config.scaling_factor
    mode = networks.vae.encode(x).latent_dist.mode()
    torch.testing.assert_close(prior.encode(x), factor * mode, atol=1e-5, rtol=1e-4)
    image = networks.vae.decode(z_t / factor).sample
    torch.testing.assert_close(prior.decode(z_t), image, atol=1e-5, rtol=1e-4)
    condition = prior.condition(x)
    swapped = torch.tensor([1, 0])
    noise = prior.predict_noise(z_t, 500, prior.posed(condition, pose))
    again = prior.predict_noise(z_t[swapped], 500, prior.posed(condition[swapped], pose[swapped]))
    torch.testing.assert_close(again[swapped], noise, atol=1e-5, rtol=1e-4)


def test_known_views_are_encoded_once(
    zero123: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = Zero123Prior.from_pretrained(zero123, image_size=SIZE)
    x, z_t, pose = inputs()
    condition = prior.condition(x)
    for network in (prior.image_encoder, prior.latents.vae.encoder):
        monkeypatch.setattr(network, "forward", None)
    for t in (900, 100):
        prior.predict_noise(z_t, t, prior.posed(condition, pose + t))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_gradient_in_the_pose(zero123: Path, guidance: float) -> None:
    """Agrees with central differences in each of the three directions."""
    options: dict[str, Any] = {"image_size": SIZE, "guidance": guidance, "torch_dtype": torch.float64}
    prior = Zero123Prior.from_pretrained(zero123, **options)
    x, z_t, pose = inputs(torch.float64)
    condition = prior.condition(x)

    def value(at: Tensor) -> Tensor:
        return prior.predict_noise(z_t, 300, prior.posed(condition, at)).square().sum()

    (gradient,) = torch.autograd.grad(value(pose.requires_grad_()), pose)
    for i in range(3):
        step = torch.zeros_like(pose)
        step[:, i] = 1e-5
        with torch.no_grad():
            numeric = (value(pose + step) - value(pose - step)) / 2e-5
        assert float(numeric) != 0
        torch.testing.assert_close(gradient[:, i].sum(), numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(zero123: Path, dtype: torch.dtype) -> None:
    """Errors relative to float32, of the prediction and of the gradient in the pose."""
    whole, half = (
        Zero123Prior.from_pretrained(zero123, image_size=SIZE, torch_dtype=kind)
        for kind in (torch.float32, dtype)
    )
    assert half.unet.dtype == half.image_encoder.dtype == half.latents.vae.dtype == dtype
    x, z_t, pose = inputs()
    pose.requires_grad_()
    results = []
    for prior in (whole, half):
        noise = prior.predict_noise(z_t, 300, prior.posed(prior.condition(x), pose))
        results.append(
            (prior.encode(x), prior.decode(z_t), noise, *torch.autograd.grad(noise.square().sum(), pose))
        )
    tolerance = {torch.float16: 0.004, torch.bfloat16: 0.05}[dtype]  # measured: 0.0017 and 0.020
    for expected, rounded in zip(*results, strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - expected).norm() <= tolerance * expected.norm()
    posed = half.posed(half.condition(x), pose)
    assert half.predict_noise(z_t.to(dtype), 300, posed).dtype == dtype


@pytest.fixture
def file(networks: Networks, tmp_path: Path) -> Path:
    """The networks in a file like those of the authors' training code."""
    save_as_lightning(networks.original_state(), tmp_path / "105000.ckpt")
    return tmp_path / "105000.ckpt"


def test_original_layout_is_the_same_prior(
    zero123: Path, zero123_config: Path, networks: Networks, file: Path, tmp_path: Path
) -> None:
    expected = Zero123Prior.from_pretrained(zero123, image_size=SIZE)
    save_file(networks.original_state(), tmp_path / "105000.safetensors")
    for path in (file, tmp_path / "105000.safetensors"):
        prior = Zero123Prior.from_single_file(path, config=zero123_config, image_size=SIZE)
        assert prior.name == str(path)
        x, z_t, pose = inputs()
        for part, reference in zip(prior.condition(x).parts, expected.condition(x).parts, strict=True):
            torch.testing.assert_close(part, reference)
        noise, reference = (p.predict_noise(z_t, 200, p.posed(p.condition(x), pose)) for p in (prior, expected))
        torch.testing.assert_close(noise, reference)
        torch.testing.assert_close(prior.decode(z_t), expected.decode(z_t))
    half = Zero123Prior.from_single_file(file, config=zero123_config, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.image_encoder.dtype == half.latents.vae.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cc_projection.weight", "no projection of a pose"),
        ("model.diffusion_model.middle_block.0.in_layers.2.weight", "weights of its unet are missing"),
        ("first_stage_model.decoder.mid.block_1.conv1.weight", "weights of its vae are missing"),
        ("cond_stage_model.model.visual.ln_pre.weight", "its image encoder"),
    ],
)
def test_file_without_a_parameter(
    zero123_config: Path, networks: Networks, tmp_path: Path, name: str, message: str
) -> None:
    state = networks.original_state()
    del state[name]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=message):
        Zero123Prior.from_single_file(tmp_path / "part.safetensors", config=zero123_config)


def test_files_that_hold_no_checkpoint(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_view_prior(tmp_path / "none.ckpt", CPU)
    (tmp_path / "text.ckpt").write_text("not weights")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of Zero123"):
        load_view_prior(tmp_path / "text.ckpt", CPU)
    with pytest.raises(UserError, match=r"hf download ashawkey/zero123-xl-diffusers .*json"):
        load_view_prior(file, CPU)


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("zero123", "kxic/zero123-165000"),
        ("zero123-xl", "ashawkey/zero123-xl-diffusers"),
        ("bennyguo/zero123-xl-diffusers", "bennyguo/zero123-xl-diffusers"),
    ],
)
def test_names(zero123: Path, tmp_path: Path, name: str, id_: str) -> None:
    with pytest.raises(UserError, match=f"hf download {id_} .*model.safetensors") as raised:
        load_view_prior(name, CPU)
    assert str(raised.value).count("\n") == 0
    in_cache(zero123, id_, tmp_path / "hub")
    prior = load_view_prior(name, CPU)
    assert isinstance(prior, Zero123Prior)
    assert (prior.name, prior.image_size, prior.unet.dtype) == (id_, 256, torch.float32)
    assert load_view_prior(prior, CPU) is prior


def test_other_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give embedded-3d, zero123, zero123-xl, a folder"):
        load_view_prior("zero99", CPU)
    with pytest.raises(UserError, match="the folder 'autoencoder' is missing"):
        load_view_prior(tmp_path, CPU)


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "scheduler", "projection"])
def test_part_that_is_missing_or_damaged(zero123: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(zero123, copy)
    folder = next(copy.glob(f"*{part}")) if part == "projection" else copy / part
    if part != "scheduler":
        (weights,) = folder.glob("*.safetensors")
        state = load_file(weights)
        del state[next(key for key in state if key.endswith("weight"))]
        save_file(state, weights, {"format": "pt"})
        with pytest.raises(UserError, match="are not those of a"):
            load_view_prior(copy, CPU)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=rf"{part}.* cannot be"):
        load_view_prior(copy, CPU)
    in_cache(copy, "owner/name", tmp_path / "hub")
    with pytest.raises(UserError, match=rf"{part}.*hf download owner/name"):
        load_view_prior("owner/name", CPU)


def test_checkpoint_of_another_model(zero123: Path, tmp_path: Path) -> None:
    shutil.copytree(zero123, tmp_path, dirs_exist_ok=True)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("projection", "no_projection"))
    with pytest.raises(UserError, match=r"has no projection of a pose .* give a checkpoint of Zero123"):
        load_view_prior(tmp_path, CPU)


def test_parts_that_do_not_fit(networks: Networks) -> None:
    parts = {name: getattr(networks, name) for name in ("vae", "unet", "image_encoder", "projection")}
    wrong: list[tuple[dict[str, Any], dict[str, int], str]] = [
        ({"unet": tiny_unet()}, {}, "takes 4 channels and must take 8"),
        ({"projection": nn.Linear(12, 16)}, {}, "goes from 12 to 16 channels and must go from 16 to 16"),
        ({}, {"image_size": 18}, "must be a multiple of 4"),
    ]
    for other, options, message in wrong:
        with pytest.raises(UserError, match=message):
            Zero123Prior(**parts | other, scheduler=DDIMScheduler(), **options)


def test_other_sizes_are_refused(networks: Networks) -> None:
    parts = {name: getattr(networks, name) for name in ("vae", "unet", "image_encoder", "projection")}
    prior = Zero123Prior(**parts, scheduler=DDIMScheduler(), image_size=SIZE)
    for function in (prior.encode, prior.condition):
        with pytest.raises(UserError, match=r"takes images of the shape \(B, 3, 16, 16\)"):
            function(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("renamed", [False, True])
def test_code_in_a_file_is_not_run(
    networks: Networks, zero123_config: Path, tmp_path: Path, write: Any, renamed: bool
) -> None:
    """Libraries read pickles where there are no safetensors; a pickle may also have that name."""
    payload = Payload(tmp_path / "ran")
    write(tmp_path / "a.ckpt", payload)
    with pytest.raises(UserError, match="cannot be read as a checkpoint of Zero123"):
        Zero123Prior.from_single_file(tmp_path / "a.ckpt", config=zero123_config)
    (tmp_path / "whole").mkdir()
    whole = networks.write(tmp_path / "whole", "cc_projection")
    for part, pickled in {
        "image_encoder": "pytorch_model.bin",
        "unet": "diffusion_pytorch_model.bin",
        "cc_projection": "diffusion_pytorch_model.bin",
    }.items():
        folder = shutil.copytree(whole, tmp_path / part)
        (weights,) = (folder / part).glob("*.safetensors")
        weights.unlink()
        write(weights if renamed else weights.with_name(pickled), payload)
        with pytest.raises(UserError, match=part):
            Zero123Prior.from_pretrained(folder, image_size=SIZE)
    assert not payload.trace.exists()
