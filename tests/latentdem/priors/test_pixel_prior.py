from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem import UserError
from latentdem.priors import LatentPrior, PixelPrior, load_prior
from latentdem.priors.guided_diffusion import Layout

from .guided_layout import Network

Scene = Callable[..., Tensor]
CPU = torch.device("cpu")
FFHQ = Network()
KERNELS = Network(channels=1)
LAYOUTS = {
    "ffhq": FFHQ,
    "imagenet": Network(blocks=2, attention=(True, True)),
    "kernels": KERNELS,
    "convolutions": Network(residual_sampling=False),
    "convolutions with attention": Network(residual_sampling=False, attention=(True, False)),
    "added time": Network(scale_shift=False, learned_variance=False),
    "one resolution": Network(multipliers=(1,), attention=(False,), blocks=2),
    "three resolutions": Network(multipliers=(1, 1, 2), attention=(False, False, True)),
}


def saved(network: Network, folder: Path, name: str = "ffhq_10m.pt") -> Path:
    torch.save(network.state(), folder / name)
    return folder / name


@pytest.mark.parametrize("name", list(LAYOUTS))
@torch.no_grad()
def test_noise_is_that_of_the_original_network(name: str, tmp_path: Path) -> None:
    network = LAYOUTS[name]
    state = network.state()
    torch.save(state, tmp_path / "model.pt")
    prior = load_prior(tmp_path / "model.pt", CPU)
    assert isinstance(prior, PixelPrior)
    x = torch.randn(2, network.channels, 16, 24)
    expected = network.output(state, x, 417)[:, : network.channels]
    torch.testing.assert_close(prior.predict_noise(x, 417), expected, rtol=1e-3, atol=1e-4)


def test_layout_follows_from_the_weights() -> None:
    layout = Layout.of(LAYOUTS["three resolutions"].state())
    assert layout == Layout(3, True, (64, 64, 128), 1, (False, False, True), True, True)


def test_latents_are_the_padded_image(tmp_path: Path) -> None:
    prior = load_prior(saved(FFHQ, tmp_path), CPU)
    assert isinstance(prior, LatentPrior)
    x = torch.rand(1, 3, 17, 21) * 2 - 1
    z = prior.encode(x)
    assert z.shape[1:] == prior.latent_shape(17, 21) == (3, 18, 22)
    assert torch.equal(prior.decode(z, 17, 21), x)
    assert torch.equal(z[..., -1, :21], x[..., -1, :])
    assert prior.alphas_cumprod.shape == (1000,)
    # The linear schedule of DDPM ends at 4.04e-5 (Ho et al. 2020, from 1e-4 to 0.02).
    assert float(prior.alphas_cumprod[-1]) == pytest.approx(4.04e-5, rel=1e-2)


def test_noise_is_differentiable_and_half_precision_is_close(tmp_path: Path) -> None:
    path = saved(FFHQ, tmp_path)
    prior, half = PixelPrior.from_file(path), PixelPrior.from_file(path, torch_dtype=torch.bfloat16)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    noise = prior.predict_noise(x, 500)
    noise.square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
    rough = half.predict_noise(x, 500)
    assert rough.dtype == torch.float32
    assert float((rough - noise).detach().std() / noise.detach().std()) < 0.05


def test_photograph_is_deblurred_with_it(tmp_path: Path, scene: Scene) -> None:
    path = saved(replace(FFHQ, attention=(False, False)), tmp_path)
    kernel = torch.full((1, 1, 9, 9), 1 / 81)
    result = latentdem.deblur(scene(32, 32), kernel=kernel, prior=str(path), steps=2, boundary="circular")
    assert result.image.shape == (1, 3, 32, 32)
    assert result.finite


def test_model_of_kernels_loads_but_restores_no_photographs(tmp_path: Path) -> None:
    prior = load_prior(saved(KERNELS, tmp_path, "kernel_checkpoint.pt"), CPU)
    assert prior.latent_shape(64, 64) == (1, 64, 64)
    with pytest.raises(UserError, match="kernels, and not with 3; give a prior of photographs"):
        prior.encode(torch.zeros(1, 3, 32, 32))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_prior(tmp_path / "missing.pt", CPU)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_prior(tmp_path / "text.pt", CPU)
    torch.save({"state_dict": FFHQ.state()}, tmp_path / "nested.pt")
    with pytest.raises(UserError, match="save its state_dict alone"):
        load_prior(tmp_path / "nested.pt", CPU)
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="names of the weights are not those of the guided-diffusion code"):
        load_prior(tmp_path / "other.pt", CPU)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("middle_block.2.out_layers.3.weight"), "not those of one whole U-Net"),
        (lambda state: state.update({"more.weight": torch.zeros(2)}), "nothing is known of more.weight"),
        (lambda state: state.update({"out.2.bias": torch.zeros(2)}), "not those of one whole U-Net"),
        (lambda state: state.update({"label_emb.weight": torch.zeros(1000, 256)}), "depends on a class"),
    ],
)
def test_incomplete_or_conditional_networks_are_refused(
    change: Callable[[dict[str, Tensor]], object], sentence: str, tmp_path: Path
) -> None:
    state = FFHQ.state()
    change(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=sentence):
        load_prior(tmp_path / "model.pt", CPU)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return Path.write_text, (tmp_path / "ran", "yes")  # type: ignore[return-value]

    torch.save({"weight": Payload()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_prior(tmp_path / "model.pt", CPU)
    assert not (tmp_path / "ran").exists()
