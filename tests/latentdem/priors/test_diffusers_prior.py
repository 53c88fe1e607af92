from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from torch import Tensor

from latentdem import DiffusersPrior, LatentPrior, UserError
from latentdem.priors import Condition

Scene = Callable[..., Tensor]
Load = Callable[..., DiffusersPrior]
PROMPT, NEGATIVE = "a photo", "a drawing"


def pipeline(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)


@pytest.mark.parametrize("layout", ["sd15", "sd21", "sdxl", "ldm_vq4"])
def test_every_layout_is_a_prior_for_any_size(
    load: Load, request: pytest.FixtureRequest, scene: Scene, layout: str
) -> None:
    prior = load(request.getfixturevalue(layout))
    assert isinstance(prior, LatentPrior)
    assert not any(p.requires_grad for net in (prior.vae, prior.unet) for p in net.parameters())
    for height, width in ((16, 24), (17, 30)):
        x = torch.cat([scene(height, width), scene(height, width, seed=1)])
        z = prior.encode(x)
        assert z.shape == (2, *prior.latent_shape(height, width))
        assert prior.decode(z, height, width).shape == x.shape
        assert prior.predict_noise(z, 500).shape == z.shape


def test_autoencoder_equals_that_of_diffusers(load: Load, sd15: Path, scene: Scene) -> None:
    pipe, prior, x = pipeline(sd15), load(sd15), scene(16, 24)
    z = pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(prior.encode(x), z)
    image = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample
    torch.testing.assert_close(prior.decode(z, 16, 24), image)


def test_padding_replicates_the_edge(load: Load, sd15: Path, scene: Scene) -> None:
    prior, x = load(sd15), scene(17, 30)
    assert prior.multiple == 4
    padded = torch.nn.functional.pad(x, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(prior.encode(x), prior.encode(padded))


def test_vq_model_quantises_when_it_decodes(load: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe, prior, x = pipeline(ldm_vq4), load(ldm_vq4), scene(16, 24)
    raw = pipe.vqvae.encode(x).latents
    z = prior.encode(x)
    torch.testing.assert_close(z, raw * 0.5)
    torch.testing.assert_close(prior.decode(z, 16, 24), pipe.vqvae.decode(raw).sample)
    assert not torch.allclose(prior.decode(z, 16, 24), pipe.vqvae.decode(raw, force_not_quantize=True).sample)


def test_vq_model_of_2022_has_no_factor(ldm_vq4: Path, tmp_path: Path, scene: Scene) -> None:
    shutil.copytree(ldm_vq4, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "vqvae" / "config.json"
    config = json.loads(file.read_text())
    del config["scaling_factor"]
    file.write_text(json.dumps(config | {"_diffusers_version": "0.1.2"}))
    x = scene(16, 16)
    new, old = (DiffusersPrior.from_pretrained(folder).encode(x) for folder in (ldm_vq4, tmp_path))
    torch.testing.assert_close(old, new * 2)


def test_unconditional_sampling_equals_that_of_the_pipeline(load: Load, ldm_vq4: Path) -> None:
    """DDIM from the same noise, with the prior's noise and schedule, ends in the pipeline's image."""
    pipe, prior = pipeline(ldm_vq4), load(ldm_vq4)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(generator=torch.manual_seed(3), num_inference_steps=5, output_type="np").images
    z = torch.randn(1, *prior.latent_shape(32, 32), generator=torch.manual_seed(3))
    for t in range(800, -1, -200):
        a = prior.alphas_cumprod[t]
        b = prior.alphas_cumprod[t - 200] if t else torch.tensor(1.0)
        eps = prior.predict_noise(z, t)
        z = b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    image = (prior.decode(z, 32, 32) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(image, torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_text_to_image_equals_that_of_the_pipeline(load: Load, sd21: Path, guidance: float) -> None:
    """The same with a prompt, guidance and v prediction, at the timesteps that steps_offset leads to."""
    pipe = pipeline(sd21)
    pipe.set_progress_bar_config(disable=True)
    options = {"negative_prompt": NEGATIVE, "guidance": guidance}
    prior = load(sd21, prompt=PROMPT, **options)
    start = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(3))
    expected = pipe(
        PROMPT,
        height=16,
        width=16,
        negative_prompt=NEGATIVE,
        guidance_scale=guidance,
        num_inference_steps=5,
        latents=start,
        output_type="latent",
    ).images
    z = start
    for t in pipe.scheduler.timesteps.tolist():
        assert t % 200 == 1
        a = prior.alphas_cumprod[t]
        b = prior.alphas_cumprod[max(t - 200, 0)]
        eps = prior.predict_noise(z, t)
        z = b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    torch.testing.assert_close(z, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_added_conditions_equal_those_of_the_xl_pipeline(load: Load, sdxl: Path, guidance: float) -> None:
    pipe = pipeline(sdxl)
    pipe.set_progress_bar_config(disable=True)
    prior = load(sdxl, prompt=PROMPT, guidance=guidance)
    seen: list[tuple[Tensor, int, Tensor]] = []

    def note(unet: Any, args: Any, output: Any) -> None:
        seen.append((args[0][-1:], int(args[1]), output[0].detach()))

    pipe.unet.register_forward_hook(note)
    options = {"guidance_scale": guidance, "num_inference_steps": 2, "output_type": "latent"}
    pipe(PROMPT, height=16, width=32, **options)
    for z, t, output in seen:
        negative, positive = output.chunk(2) if guidance != 1 else (output, output)
        expected = negative + guidance * (positive - negative)
        torch.testing.assert_close(prior.predict_noise(z, t), expected, atol=1e-5, rtol=1e-4)


def calls_of(prior: DiffusersPrior, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes that the U-Net meets from now on."""
    sizes: list[int] = []
    forward = prior.unet.forward

    def counted(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(z))
        return forward(z, *args, **kwargs)

    monkeypatch.setattr(prior.unet, "forward", counted)
    return sizes


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({"prompt": PROMPT}, 3),
        ({"prompt": PROMPT, "guidance": 7.5, "negative_prompt": PROMPT}, 3),
        ({"guidance": 7.5}, 3),
        ({"prompt": PROMPT, "guidance": 7.5}, 6),
    ],
)
def test_guidance_without_effect_costs_nothing(
    load: Load, sd15: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], batch: int
) -> None:
    prior = load(sd15, **options)
    sizes = calls_of(prior, monkeypatch)
    prior.predict_noise(torch.randn(3, 4, 8, 8), 400)
    assert sizes == [batch]


def test_guidance_combines_both_predictions(load: Load, sd15: Path) -> None:
    z = torch.randn(2, 4, 8, 8)
    guided = load(sd15, prompt=PROMPT, negative_prompt=NEGATIVE, guidance=3.0)
    positive, negative = (load(sd15, prompt=p) for p in (PROMPT, NEGATIVE))
    p, n = (prior.predict_noise(z, 300) for prior in (positive, negative))
    assert not torch.allclose(p, n, atol=1e-4)
    torch.testing.assert_close(guided.predict_noise(z, 300), n + 3 * (p - n), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["sd15", "sd21", "ldm_vq4"])
def test_gradients_reach_latents_and_images(
    load: Load, request: pytest.FixtureRequest, scene: Scene, layout: str
) -> None:
    """Through each function they agree with finite differences along one direction."""
    prior = load(request.getfixturevalue(layout), torch_dtype=torch.float64)
    x = scene(16, 16).double()
    z = prior.encode(x)
    functions = [(lambda v: prior.predict_noise(v, 200), z), (prior.encode, x)]
    if layout != "ldm_vq4":  # whose derivative is that of the decoder behind the quantisation, not of both
        functions.append((lambda v: prior.decode(v, 16, 16), z))
    for function, at in functions:
        at = at.detach().requires_grad_()
        out = function(at)
        weight = torch.randn_like(out)
        (gradient,) = torch.autograd.grad((weight * out).sum(), at)
        direction = torch.randn_like(at)
        with torch.no_grad():
            change = (function(at + 1e-5 * direction) - function(at - 1e-5 * direction)) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), (weight * change).sum(), rtol=1e-4, atol=1e-6)


def test_gradient_passes_through_the_quantisation(load: Load, ldm_vq4: Path) -> None:
    prior = load(ldm_vq4)
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    prior.decode(z, 16, 16).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["sd21", "sdxl", "ldm_vq4"])
def test_half_precision_weights(
    load: Load, request: pytest.FixtureRequest, scene: Scene, layout: str, dtype: torch.dtype
) -> None:
    folder = request.getfixturevalue(layout)
    whole = load(folder)
    half = load(folder, torch_dtype=dtype)
    assert half.unet.dtype == dtype
    upcast = layout == "ldm_vq4" or (layout == "sdxl" and dtype == torch.float16)
    assert half.vae.dtype == (torch.float32 if upcast else dtype)
    x = scene(16, 16)
    z = whole.encode(x)
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    for name, arguments in {"encode": (x,), "predict_noise": (z, 300), "decode": (z, 16, 16)}.items():
        expected, found = (getattr(prior, name)(*arguments) for prior in (whole, half))
        assert found.dtype == torch.float32
        if name == "decode" and layout == "ldm_vq4":
            continue  # rounded weights may choose another codebook entry
        assert (found - expected).norm() <= tolerance * expected.norm()
    assert half.predict_noise(z.half(), 300).dtype == torch.float16


def test_other_autoencoder(sd15: Path, taesd: Path, scene: Scene) -> None:
    x, tiny = scene(16, 16), AutoencoderTiny.from_pretrained(taesd, low_cpu_mem_usage=False)
    for vae in (taesd, str(taesd), tiny):
        prior = DiffusersPrior.from_pretrained(sd15, vae=vae)
        torch.testing.assert_close(prior.encode(x), tiny.encode(x).latents)
        z = prior.encode(x)
        torch.testing.assert_close(prior.decode(z, 16, 16), tiny.decode(z).sample)


def test_shift_and_statistics_of_latents(sd15: Path, scene: Scene) -> None:
    from .conftest import tiny_vae

    prior, x = DiffusersPrior.from_pretrained(sd15), scene(16, 16)
    state = prior.vae.state_dict()
    cases = [
        ({"shift_factor": 0.2, "scaling_factor": 0.5}, lambda raw: (raw - 0.2) * 0.5),
        (
            {"latents_mean": [1.0] * 4, "latents_std": [2.0, 2.0, 4.0, 4.0], "scaling_factor": 0.5},
            lambda raw: (raw - 1) * 0.5 / torch.tensor([2.0, 2.0, 4.0, 4.0]).view(1, 4, 1, 1),
        ),
    ]
    for config, scaled in cases:
        vae = tiny_vae(**config)
        vae.load_state_dict(state)
        other = DiffusersPrior.from_pretrained(sd15, vae=vae)
        z = other.encode(x)
        torch.testing.assert_close(z, scaled(vae.encode(x).latent_dist.mode()))
        torch.testing.assert_close(other.decode(z, 16, 16), prior.decode(prior.encode(x), 16, 16))


@pytest.mark.parametrize("layout", ["sd15", "sdxl", "ldm_vq4"])
def test_prior_of_a_pipeline(load: Load, request: pytest.FixtureRequest, layout: str) -> None:
    folder = request.getfixturevalue(layout)
    text = {} if layout == "ldm_vq4" else {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance": 2.0}
    pipe = pipeline(folder)
    prior = DiffusersPrior.from_pipeline(pipe, **text)
    assert prior.unet is pipe.unet
    z = torch.randn(1, *prior.latent_shape(16, 16))
    expected = load(folder, **text).predict_noise(z, 100)
    torch.testing.assert_close(prior.predict_noise(z, 100), expected)


def test_parts_that_do_not_fit_are_refused(load: Load, sd15: Path, ldm_vq4: Path) -> None:
    prior, other = load(sd15), load(ldm_vq4)
    scheduler, condition = DDIMScheduler(), Condition(torch.zeros(1, 77, 16))
    wrong = [
        ((other.vae, prior.unet, scheduler, condition), {}, "latents of 3 channels and the U-Net takes 4"),
        ((prior.unet, prior.unet, scheduler, condition), {}, "UNet2DConditionModel cannot be part"),
        ((prior.vae, prior.vae, scheduler, condition), {}, "AutoencoderKL cannot be part of a prior"),
        ((prior.vae, prior.unet, scheduler), {}, "UNet2DConditionModel needs embeddings"),
        ((other.vae, other.unet, scheduler, condition), {}, "UNet2DModel takes no embeddings"),
        ((prior.vae, prior.unet, scheduler, Condition(torch.zeros(1, 77, 8))), {}, "8 channels"),
        ((prior.vae, prior.unet, scheduler, condition), {"guidance": 2.0}, "needs a negative prompt"),
    ]
    for parts, options, message in wrong:
        with pytest.raises(UserError, match=message):
            DiffusersPrior(*parts, **options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_embed_type": "timestep"}, "more than a prompt"),
        ({"encoder_hid_dim": 4, "encoder_hid_dim_type": "text_proj"}, "more than a prompt"),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 5 * 4 + 12,
            },
            "other added conditions",
        ),
    ],
)
def test_noise_predictors_with_other_conditions_are_refused(
    load: Load, sd15: Path, config: dict[str, Any], message: str
) -> None:
    from .conftest import tiny_unet

    prior = load(sd15)
    condition = Condition(torch.zeros(1, 77, 16), torch.zeros(1, 12))
    with pytest.raises(UserError, match=message):
        DiffusersPrior(prior.vae, tiny_unet(**config), DDIMScheduler(), condition)


@pytest.mark.parametrize("options", [{"prompt": "a face"}, {"guidance": 2.0}, {"negative_prompt": "a cat"}])
def test_unconditional_checkpoint_takes_no_text(ldm_vq4: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="knows no text"):
        DiffusersPrior.from_pretrained(ldm_vq4, **options)


def test_pipeline_without_the_parts_is_refused() -> None:
    with pytest.raises(UserError, match="has no autoencoder and U-Net"):
        DiffusersPrior.from_pipeline(diffusers.DiffusionPipeline())
