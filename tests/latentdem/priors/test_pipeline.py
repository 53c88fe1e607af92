from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import latentdem
from latentdem import DiffusersPrior, LatentDEMPipeline, UserError
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.search import layout

Scene = Callable[..., Tensor]
Load = Callable[[Path], LatentDEMPipeline]
KERNEL = gaussian_kernel(5, 1)


@pytest.fixture(scope="module")
def open_pipeline() -> Load:
    """`LatentDEMPipeline.from_pretrained` without progress bars, once for each folder."""
    known: dict[Path, LatentDEMPipeline] = {}

    def load(folder: Path) -> LatentDEMPipeline:
        if folder not in known:
            known[folder] = LatentDEMPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
            known[folder].set_progress_bar_config(disable=True)
        return known[folder]

    return load


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe: LatentDEMPipeline, x: Tensor, **options: Any) -> Any:
    """Restores `x`, in [-1, 1]."""
    defaults = {"kernel_size": 5, "num_inference_steps": 2, "generator": seeded(), "output_type": "pt"}
    return pipe((x + 1) / 2, **{**defaults, **options})


@pytest.mark.parametrize("layout", ["sd15", "sdxl", "ldm_vq4"])
def test_pipeline_equals_deblur(
    open_pipeline: Load, request: pytest.FixtureRequest, scene: Scene, layout: str
) -> None:
    folder, x = request.getfixturevalue(layout), scene(16, 18)
    x = (64 * x).round() / 64  # the pipeline's range does not round such values
    found = run(open_pipeline(folder), x)
    seed = int(torch.randint(2**63 - 1, (), generator=seeded()))
    prior = DiffusersPrior.from_pretrained(folder)
    same = latentdem.deblur(x, 5, prior=prior, steps=2, seed=seed, device="cpu")
    torch.testing.assert_close(found.images, (same.image + 1) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.kernels, same.kernel, atol=1e-4, rtol=0)


def test_saved_and_loaded_with_its_own_denoiser(sd15: Path, scene: Scene, tmp_path: Path) -> None:
    parts = diffusers.DiffusionPipeline.from_pretrained(sd15, low_cpu_mem_usage=False).components
    names = ("unet", "scheduler", "vae", "text_encoder", "tokenizer")
    own = KernelDenoiser(layers=3, channels=4)
    pipe = LatentDEMPipeline(**{name: parts[name] for name in names}, kernel_denoiser=own)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "kernel_denoiser/diffusion_pytorch_model.safetensors").exists()
    again = LatentDEMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    again.set_progress_bar_config(disable=True)
    assert again.kernel_denoiser.config["channels"] == 4
    first, second = (run(each, scene(16, 16)) for each in (pipe, again))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.kernels, second.kernels)


def test_from_pipe_shares_the_networks(open_pipeline: Load, sd15: Path, ldm_vq4: Path) -> None:
    for folder, name in ((sd15, "vae"), (ldm_vq4, "vqvae")):
        source = diffusers.DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
        pipe = LatentDEMPipeline.from_pipe(source)
        assert pipe.unet is source.unet
        assert getattr(pipe, name) is getattr(source, name)


def test_output_types(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe, x = open_pipeline(ldm_vq4), torch.cat([scene(16, 18), scene(16, 18, seed=1)])
    found = {kind: run(pipe, x, kernel=KERNEL, output_type=kind) for kind in ("pt", "np", "pil", "latent")}
    pixels = found["pt"].images
    assert pixels.shape == (2, 3, 16, 18)
    assert 0 <= pixels.min() <= pixels.max() <= 1
    np.testing.assert_array_equal(found["np"].images, pixels.permute(0, 2, 3, 1).numpy())
    assert [image.size for image in found["pil"].images] == [(18, 16)] * 2
    prior = DiffusersPrior.from_pipeline(pipe)
    torch.testing.assert_close(found["latent"].images, prior.encode(pixels * 2 - 1), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(each.kernels, KERNEL.repeat(2, 1, 1, 1)) for each in found.values())
    images, kernels = run(pipe, x, kernel=KERNEL, return_dict=False)
    assert torch.equal(images, pixels)
    assert kernels.shape == (2, 1, 5, 5)


def test_all_kinds_of_images_are_accepted(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe = open_pipeline(ldm_vq4)
    levels = ((scene(16, 18)[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    picture, pixels = Image.fromarray(levels), torch.from_numpy(levels / np.float32(255)).permute(2, 0, 1)
    options = {"kernel": KERNEL, "num_inference_steps": 2, "output_type": "pt"}
    first, *others = (
        pipe(image, generator=seeded(), **options).images
        for image in (picture, [picture], levels, levels[None], pixels, pixels[None])
    )
    assert first.shape == (1, 3, 16, 18)
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-4, rtol=0)


def test_callback_reads_and_changes_the_state(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe, x = open_pipeline(ldm_vq4), scene(16, 16)
    seen: list[tuple[int, int, dict[str, Tensor]]] = []

    def look(_: Any, i: int, t: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((i, t, dict(tensors)))
        return {}

    def move(_: Any, i: int, t: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": tensors["latents"] + 1}

    names = ("latents", "kernel", "pred_original_sample")
    options = {"kernel": KERNEL, "num_inference_steps": 3, "boundary": "circular"}
    plain = run(pipe, x, **options)
    watched = run(pipe, x, **options, callback_on_step_end=look, callback_on_step_end_tensor_inputs=names)
    assert torch.equal(plain.images, watched.images)
    assert [i for i, _, _ in seen] == [0, 1, 2]
    assert [t for _, t, _ in seen] == [999, 666, 332]
    for _, _, tensors in seen:
        assert tuple(tensors) == names
        assert tensors["latents"].shape == tensors["pred_original_sample"].shape == (4, 3, 4, 4)
        assert torch.equal(tensors["kernel"], KERNEL)
    assert not torch.allclose(plain.images, run(pipe, x, **options, callback_on_step_end=move).images)


def test_callback_changes_the_kernel(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    def pin(_: Any, i: int, t: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"kernel": KERNEL.expand_as(tensors["kernel"])}

    inputs = {"callback_on_step_end": pin, "callback_on_step_end_tensor_inputs": ("kernel",)}
    found = run(open_pipeline(ldm_vq4), scene(16, 16), **inputs)
    torch.testing.assert_close(found.kernels, KERNEL, atol=1e-4, rtol=0)


def test_latents_are_the_initial_noise(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe, x = open_pipeline(ldm_vq4), scene(16, 16)
    options = {"kernel": KERNEL, "boundary": "circular"}
    noise = torch.randn(4, 3, 4, 4)
    first, second = (run(pipe, x, **options, latents=noise).images for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, run(pipe, x, **options, latents=-noise).images)
    with pytest.raises(UserError, match=r"the shape \(4, 3, 4, 4\) here, not \(1, 3, 4, 4\)"):
        run(pipe, x, **options, latents=noise[:1])


def test_meaningless_latents_are_refused(
    open_pipeline: Load, ldm_vq4: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, noise = open_pipeline(ldm_vq4), torch.randn(4, 3, 4, 4)
    with pytest.raises(UserError, match="only with a known kernel"):
        run(pipe, scene(16, 16), latents=noise)
    monkeypatch.setattr(layout, "WORKING_SIZE", 12)
    monkeypatch.setattr(layout, "TILE_SIZE", 12)
    with pytest.raises(UserError, match="restored as a whole"):
        run(pipe, scene(16, 16), kernel=KERNEL, latents=noise)


def test_prompt_and_guidance(open_pipeline: Load, sd15: Path, scene: Scene) -> None:
    pipe, x = open_pipeline(sd15), scene(16, 16)
    guidance = {"prompt": "a photo", "negative_prompt": "a drawing", "guidance_scale": 3.0}
    plain, guided = (run(pipe, x, kernel=KERNEL, **options).images for options in ({}, guidance))
    assert not torch.allclose(plain, guided, atol=1e-4)


def test_seed_is_random_without_a_generator(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe, x = open_pipeline(ldm_vq4), scene(16, 16)
    torch.manual_seed(0)
    first, second = (run(pipe, x, kernel=KERNEL, generator=None).images for _ in range(2))
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, run(pipe, x, kernel=KERNEL, generator=None).images)


def test_progress_reaches_the_end(open_pipeline: Load, ldm_vq4: Path, scene: Scene) -> None:
    pipe = LatentDEMPipeline(**open_pipeline(ldm_vq4).components)
    bars = []
    bar = pipe.progress_bar
    pipe.progress_bar = lambda **options: bars.append(bar(**options)) or bars[-1]
    run(pipe, scene(16, 16), kernel=KERNEL)
    assert bars[0].n == bars[0].total == 100


def test_autoencoder_in_slices_and_tiles(open_pipeline: Load, sd15: Path, ldm_vq4: Path) -> None:
    pipe = open_pipeline(sd15)
    pipe.enable_vae_slicing()
    pipe.enable_vae_tiling()
    assert pipe.vae.use_slicing
    assert pipe.vae.use_tiling
    pipe.disable_vae_slicing()
    pipe.disable_vae_tiling()
    assert not pipe.vae.use_slicing
    assert not pipe.vae.use_tiling
    with pytest.raises(UserError, match="A VQModel has no tiling"):
        open_pipeline(ldm_vq4).enable_vae_tiling()


def test_half_precision_weights(sd15: Path, scene: Scene) -> None:
    pipe = LatentDEMPipeline.from_pretrained(sd15, torch_dtype=torch.bfloat16, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cpu", torch.bfloat16)
    found = run(pipe, scene(16, 16))
    assert found.images.isfinite().all()
    assert found.images.dtype == found.kernels.dtype == torch.float32


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
@pytest.mark.parametrize("layout", ["sd15", "ldm_vq4"])
def test_offload_moves_every_network_before_it_runs(
    open_pipeline: Load, request: pytest.FixtureRequest, scene: Scene, layout: str
) -> None:
    folder, x = request.getfixturevalue(layout), scene(16, 16)
    pipe = LatentDEMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_model_cpu_offload(device="cpu")
    networks = [getattr(pipe, name) for name in ("unet", "vae", "vqvae", "text_encoder")]
    networks = [each for each in networks if each is not None]
    moved, ran = dict.fromkeys(map(type, networks), 0), dict.fromkeys(map(type, networks), 0)

    def counted(counts: dict[type, int], kind: type, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            counts[kind] += 1
            return function(*arguments, **options)

        return count

    for each in networks:
        hook, kind = each._hf_hook, type(each)
        hook.pre_forward = counted(moved, kind, hook.pre_forward)
        for inner in (getattr(each, name, None) for name in ("encoder", "decoder", "conv_in", "text_model")):
            if inner is not None:
                inner.forward = counted(ran, kind, inner.forward)
    assert run(pipe, x).images.isfinite().all()
    assert all(ran.values())
    assert moved == ran
    # Compared with a known kernel: in a search, rounding may decide between kernels of a random network.
    kernel = gaussian_kernel(5, 1.0)
    found, plain = (run(each, x, kernel=kernel) for each in (pipe, open_pipeline(folder)))
    torch.testing.assert_close(found.images, plain.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.kernels, plain.kernels, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_type": "jpeg"}, "Unknown output type 'jpeg'"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "cannot be given 'noise'"),
        ({"generator": [seeded()]}, "not a list"),
        ({"prompt": "a face"}, "knows no text"),
        ({"kernel_size": 17}, "larger than the image"),
        ({"boundary": "round"}, "Unknown boundary"),
    ],
)
def test_wrong_arguments_are_refused(
    open_pipeline: Load, ldm_vq4: Path, scene: Scene, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(open_pipeline(ldm_vq4), scene(16, 16), **options)


def test_images_of_two_sizes_are_refused(open_pipeline: Load, ldm_vq4: Path) -> None:
    with pytest.raises(UserError, match="of one size"):
        open_pipeline(ldm_vq4)([np.zeros((16, 16)), np.zeros((16, 17))])
