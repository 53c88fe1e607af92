"""Accelerated autoencoders against themselves untouched: tiny networks in the shapes of diffusers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from torch import Tensor, nn

import latentdem_ext as ext

COMMON = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "latent_channels": 4}
DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2


def kl(**changes) -> nn.Module:
    return AutoencoderKL(**{**COMMON, "down_block_types": DOWN, "up_block_types": UP, **changes})


class Sequential(nn.Module):
    """Without normalisation, the layers in `nn.Sequential`, as in the embedded autoencoder."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.SiLU(), nn.Conv2d(12, 12, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.body(x)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), self.Block(), nn.Conv2d(12, 4, 3, 1, 1))
        up = [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(12, 12, 3, padding=1)]
        self.decoder = nn.Sequential(nn.Conv2d(4, 12, 3, 1, 1), *up, self.Block(), nn.Conv2d(12, 3, 3, 1, 1))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "kl": kl,
    "kl without attention": lambda: kl(mid_block_add_attention=False),
    "vq": lambda: VQModel(**COMMON, down_block_types=DOWN, up_block_types=UP, num_vq_embeddings=16),
    "vq with spatial norm": lambda: VQModel(  # whose norms have 32 groups
        **{**COMMON, "block_out_channels": (32, 32), "norm_type": "spatial"},
        down_block_types=DOWN,
        up_block_types=UP,
        num_vq_embeddings=16,
    ),
    "sequential": Sequential,
}


@pytest.fixture(params=MODULES)
def vae(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[request.param]().eval().requires_grad_(False)


def parts(vae: nn.Module) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """Encoder and decoder with the channels of their input."""
    if isinstance(vae, Sequential):
        return {"encoder": (vae.encoder, 3), "decoder": (vae.decoder, 4)}
    if isinstance(vae, VQModel):
        return {
            "encoder": (lambda x: vae.encode(x).latents, 3),
            "decoder": (lambda z: vae.decode(z, force_not_quantize=True).sample, 4),
        }
    return {
        "encoder": (lambda x: vae.encode(x).latent_dist.mean, 3),
        "decoder": (lambda z: vae.decode(z).sample, 4),
    }


def output_and_gradient(vae: nn.Module, part: str, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = parts(vae)[part][0](x)
    towards = torch.linspace(-1, 1, y[0].numel()).view(y.shape[1:]).to(y).expand_as(y)
    return y.detach(), torch.autograd.grad(y, x, towards)[0]


def inputs(vae: nn.Module, part: str, dtype: torch.dtype = torch.float32) -> Tensor:
    sides = (18, 14) if part == "encoder" else (9, 7)
    return torch.randn(2, parts(vae)[part][1], *sides).to(dtype)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_float32_is_equal(relative_error, vae, part, checkpoint):
    x = inputs(vae, part)
    expected = output_and_gradient(copy.deepcopy(vae).double(), part, x.double())
    ext.accelerate_vae(vae, checkpoint=checkpoint)
    for layout in (torch.contiguous_format, torch.channels_last):
        for actual, exact in zip(
            output_and_gradient(vae, part, x.contiguous(memory_format=layout)), expected, strict=True
        ):
            assert relative_error(actual, exact) < 1e-5
    with torch.no_grad():
        assert relative_error(parts(vae)[part][0](x), expected[0]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_precision_is_no_worse_than_that_of_pytorch(relative_error, vae, part, dtype):
    x = inputs(vae, part, dtype)
    # All in the weights that half precision has.
    vae.to(dtype)
    exact = output_and_gradient(copy.deepcopy(vae).float(), part, x.float())
    usual = output_and_gradient(vae, part, x)
    with ext.accelerate_vae(vae):
        actual = output_and_gradient(vae, part, x)
    for mine, theirs, expected in zip(actual, usual, exact, strict=True):
        assert mine.dtype == dtype
        assert relative_error(mine, expected) <= 2 * relative_error(theirs, expected)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_remove_gives_everything_back(vae, dtype):
    x = inputs(vae, "decoder")
    before = output_and_gradient(vae, "decoder", x)
    state = {name: (value.clone(), value.stride()) for name, value in vae.state_dict().items()}
    parameters = list(vae.parameters())
    handle = ext.accelerate_vae(vae, dtype=dtype)
    assert list(vae.state_dict()) == list(state)
    assert all(one is other for one, other in zip(vae.parameters(), parameters, strict=True))
    assert {value.dtype for value in vae.parameters()} == {dtype or torch.float32}
    handle.remove()
    handle.remove()
    for name, value in vae.state_dict().items():
        assert torch.equal(value, state[name][0])
        assert value.stride() == state[name][1]
    assert not any("forward" in module.__dict__ for module in vae.modules())
    for actual, expected in zip(output_and_gradient(vae, "decoder", x), before, strict=True):
        assert torch.equal(actual, expected)


def test_weights_loaded_meanwhile_stay():
    vae, other = kl(), kl()
    handle = ext.accelerate_vae(vae, dtype=torch.bfloat16)
    vae.load_state_dict(other.state_dict())
    handle.remove()
    for actual, expected in zip(vae.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(actual, expected.bfloat16().float(), rtol=0, atol=0)


def test_operations_are_used_and_a_copy_uses_them_too():
    vae = kl().requires_grad_(False)
    ext.accelerate_vae(vae)
    with ext.record_backends() as used:
        copy.deepcopy(vae).decode(torch.randn(1, 4, 4, 4))
    assert {"group_norm_silu", "upsample_conv"} <= set(used)


def kept_bytes(vae: nn.Module, x: Tensor) -> int:
    """Of the tensors that are held for the gradient, without parameters."""
    weights = {parameter.data_ptr() for parameter in vae.parameters()}
    kept: dict[int, Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        vae.decode(x.requires_grad_())
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)


def test_less_is_kept_for_the_gradient():
    x, vae = torch.randn(1, 4, 16, 16), kl().requires_grad_(False)
    usual = kept_bytes(vae, x)
    with ext.accelerate_vae(vae):
        lean = kept_bytes(vae, x)
    with ext.accelerate_vae(vae, checkpoint=True):
        leanest = kept_bytes(vae, x)
    assert lean < 0.6 * usual
    assert leanest < 0.7 * lean


def test_weights_can_still_be_learned(relative_error):
    torch.manual_seed(0)
    vae, x = kl(), torch.randn(1, 4, 6, 5)
    results = []
    for _ in range(2):
        vae.zero_grad()
        vae.decode(x).sample.square().sum().backward()
        results.append({n: p.grad.clone() for n, p in vae.named_parameters() if p.grad is not None})
        handle = ext.accelerate_vae(vae) if len(results) == 1 else None
    assert handle is None
    assert results[0].keys() == results[1].keys()
    for name, expected in results[0].items():
        if expected.norm() > 1e-3:
            assert (results[1][name] - expected).norm() < 1e-4 * expected.norm(), name


@pytest.mark.parametrize("scale", [1e2, 3e3])
def test_large_activations_do_not_overflow_in_half_precision(relative_error, scale):
    """Far beyond the square root of what float16 holds, which squares in float16 would not survive."""
    torch.manual_seed(0)
    vae = kl().requires_grad_(False)
    vae.decoder.conv_in.weight *= scale
    z = torch.randn(1, 4, 8, 8).half()
    vae.half()
    inside = []
    vae.decoder.mid_block.register_forward_hook(lambda module, given, result: inside.append(result.abs().max()))
    exact = output_and_gradient(copy.deepcopy(vae).float(), "decoder", z.float())
    ext.accelerate_vae(vae)
    actual = output_and_gradient(vae, "decoder", z)
    assert inside[-1] > scale / 10
    assert relative_error(actual[0], exact[0]) < 0.02
    assert relative_error(actual[1], exact[1]) < 0.05


def test_compiles_to_one_graph(relative_error):
    """Two residual blocks, upsampling and the end of the decoder contain everything that is replaced."""
    torch.manual_seed(0)
    vae = kl(block_out_channels=(16, 16)).requires_grad_(False)
    ext.accelerate_vae(vae)
    decoder, z = vae.decoder, torch.randn(1, 16, 4, 4).requires_grad_()

    def end(z: Tensor) -> Tensor:
        x = decoder.up_blocks[0](z)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))

    towards = torch.randn(1, 3, 8, 8)
    compiled = torch.compile(end, backend="aot_eager", fullgraph=True)
    results = [(y, *torch.autograd.grad(y, z, towards)) for y in (compiled(z), end(z))]
    for result, expected in zip(*results, strict=True):
        assert relative_error(result, expected) < 1e-6


def test_what_cannot_be_done_is_said():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, not str"):
        ext.accelerate_vae("vae")
    with pytest.raises(TypeError, match="dtype"):
        ext.accelerate_vae(kl(), dtype=torch.int8)
    with pytest.raises(ValueError, match="nothing to accelerate in Linear"):
        ext.accelerate_vae(nn.Linear(2, 2))
    vae = kl()
    ext.accelerate_vae(vae)
    with pytest.raises(ValueError, match="replaced already"):
        ext.accelerate_vae(vae)


def test_blocks_with_an_embedding_of_the_time_are_left_alone():
    types = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(8, block_out_channels=(16, 32), norm_num_groups=8, layers_per_block=1, **types)
    block = unet.mid_block.resnets[0]
    with ext.accelerate_vae(unet):
        assert "forward" not in block.__dict__
