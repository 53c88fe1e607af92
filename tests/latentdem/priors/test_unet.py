"""The U-Net and the loading of networks against diffusers, whose layout and results they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from latentdem import UserError
from latentdem.priors import EMBEDDED_WEIGHTS
from latentdem.priors.loading import load_network, load_schedule
from latentdem.priors.unet import UNet


def pair(attention: bool, layers: int = 2) -> tuple[UNet, UNet2DModel]:
    """Ours and that of diffusers, with the same weights."""
    widths, options = (16, 32, 48), {"norm_num_groups": 8, "attention_head_dim": 16}
    theirs = UNet2DModel(
        in_channels=5,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        add_attention=attention,
        **options,
    )
    ours = UNet(5, 3, widths, layers, add_attention=attention, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(("attention", "layers"), [(False, 2), (True, 1)])
@pytest.mark.parametrize("t", [400, torch.tensor([0, 999])], ids=["one timestep", "two timesteps"])
def test_result_and_gradients_are_those_of_diffusers(
    attention: bool, layers: int, t: torch.Tensor | int
) -> None:
    ours, theirs = pair(attention, layers)
    x = torch.randn(2, 5, 16, 24).requires_grad_()
    expected = theirs(x, t).sample
    actual = ours(x, t)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # the timestep becomes a part of a bias
        torch.testing.assert_close(ours(x, t), expected, rtol=1e-4, atol=1e-5)
    towards = torch.randn_like(expected)
    for mine, other in zip(
        torch.autograd.grad(actual, (x, *ours.parameters()), towards),
        torch.autograd.grad(expected, (x, *dict(named_like(ours, theirs)).values()), towards),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def named_like(ours: UNet, theirs: UNet2DModel) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters of `theirs` in the order of `ours`."""
    known = dict(theirs.named_parameters())
    return [(name, known[name]) for name, _ in ours.named_parameters()]


def test_coarsest_features_are_those_of_diffusers() -> None:
    ours, theirs = pair(True)
    seen: list[torch.Tensor] = []
    theirs.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(2, 5, 16, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs(x, 7)
        found = ours.coarsest(x, 7)
    assert found.shape == (2, 48, 4, 6)
    torch.testing.assert_close(found, seen[0], rtol=1e-4, atol=1e-5)


def test_frozen_weights_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they go through another algorithm, with gradients in the latent."""
    ours, theirs = pair(attention=False)
    ours.requires_grad_(False)
    theirs.requires_grad_(False)
    x = torch.randn(2, 5, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected, actual = theirs(x, 10).sample, ours(x, 10)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    towards = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, x, towards)[0] for y in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_diffusers_loads_what_is_saved(tmp_path: Path) -> None:
    ours, _ = pair(attention=True)
    ours.save_pretrained(tmp_path)
    theirs = UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    again = load_network(UNet, tmp_path)
    x = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(theirs(x, 5).sample, ours(x, 5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again(x, 5), ours(x, 5), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_what_diffusers_saves_is_loaded(tmp_path: Path) -> None:
    _, theirs = pair(attention=False)
    theirs.half().save_pretrained(tmp_path)
    ours = load_network(UNet, tmp_path)
    assert ours.dtype == torch.float32
    x = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(ours(x, 5), theirs.float()(x, 5).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"act_fn": "relu"}, "its act_fn is relu, and UNet has silu"),
        ({"down_block_types": ["AttnDownBlock2D"] * 3}, "its down_block_types is"),
        ({"novelty": 1}, "unexpected keyword argument 'novelty'"),
    ],
)
def test_another_kind_of_unet_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    ours, _ = pair(attention=False)
    ours.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=sentence):
        load_network(UNet, tmp_path)


def test_missing_and_damaged_configurations_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded: .*config\.json"):
        load_network(UNet, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_network(UNet, tmp_path)


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_the_schedule_has_the_bits_of_diffusers(tmp_path: Path, kind: str) -> None:
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=kind, prediction_type="v_prediction"
    )
    scheduler.save_pretrained(tmp_path)
    schedule = load_schedule(tmp_path)
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod)
    assert schedule.prediction == "v_prediction"


def test_the_shipped_schedule_is_that_of_stable_diffusion() -> None:
    schedule = load_schedule(EMBEDDED_WEIGHTS / "scheduler")
    assert torch.equal(
        schedule.alphas_cumprod, DDPMScheduler.from_pretrained(EMBEDDED_WEIGHTS / "scheduler").alphas_cumprod
    )


def test_an_unknown_schedule_is_refused(tmp_path: Path) -> None:
    DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="squaredcos_cap_v2"):
        load_schedule(tmp_path)
