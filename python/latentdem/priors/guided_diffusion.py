"""U-Nets of the guided-diffusion code (Dhariwal and Nichol 2021) as U-Nets of diffusers.

The layout has no configuration in its files: each program of the family (DPS, BlindDPS, FastDiffusionEM,
GibbsDDRM) states it in a file of its own. All but the width of an attention head follows from the names and
shapes of the weights, and that width is 64 in every published checkpoint of the family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diffusers import UNet2DModel
from torch import Tensor

from ..errors import UserError

State = Mapping[str, Tensor]
HEAD_WIDTH = 64
_GROUPS = 32  # of every group norm of the code
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


@dataclass(frozen=True)
class Layout:
    """Architecture of a U-Net, read from its weights.

    Attributes:
        channels: of the images.
        learned_variance: whether the output has a second half, the variance of the step.
        widths: channels at each resolution, the finest first.
        blocks: residual blocks at each resolution on the way down.
        attention: whether there is attention, at each resolution.
        residual_sampling: whether residual blocks change the resolution, instead of convolutions.
        scale_shift: whether the time embedding scales and shifts, instead of being added.
    """

    channels: int
    learned_variance: bool
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    residual_sampling: bool
    scale_shift: bool

    @classmethod
    def of(cls, state: State) -> Layout:
        """The layout of a state dictionary.

        Raises:
            UserError: it has other weights, depends on a class, or has an unsupported width.
        """
        if "time_embed.0.weight" not in state or "out.2.weight" not in state:
            raise UserError("the names of the weights are not those of the guided-diffusion code")
        if "label_emb.weight" in state:
            raise UserError("the network depends on a class; give the unconditional checkpoint")
        outputs = 1 + max(_index(name) for name in state if name.startswith("output_blocks."))
        # A resolution ends on the way up where a block has a layer that enlarges. On the way down residual
        # blocks that reduce look like the others.
        ends = [i for i in range(outputs) if _enlarges(state, i)]
        blocks = ends[0] if ends else outputs - 1
        levels = outputs // (blocks + 1)
        down = [1 + level * (blocks + 1) for level in range(levels)]
        channels = state["input_blocks.0.0.weight"].shape[1]
        layout = cls(
            channels,
            state["out.2.weight"].shape[0] == 2 * channels,
            tuple(state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in down),
            blocks,
            tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in down),
            not any(".op." in name for name in state),
            state["middle_block.0.emb_layers.1.weight"].shape[0]
            == 2 * state["middle_block.0.out_layers.0.weight"].shape[0],
        )
        if state["time_embed.0.weight"].shape[1] != layout.widths[0]:
            raise UserError("its first resolution is narrower than the width of its time embedding")
        attended = [w for w, has in zip(layout.widths, layout.attention, strict=True) if has]
        if any(width % HEAD_WIDTH for width in (*attended, layout.widths[-1])):
            raise UserError(f"its attention has not the heads of {HEAD_WIDTH} channels of this family")
        return layout

    def network(self) -> UNet2DModel:
        """The network with random weights."""
        sampling, plain = ("conv", ("DownBlock2D", "UpBlock2D"))
        if self.residual_sampling:
            sampling, plain = ("resnet", ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"))
        attended = ("AttnDownBlock2D", "AttnUpBlock2D")
        down, up = zip(*(attended if has else plain for has in self.attention), strict=True)
        return UNet2DModel(
            in_channels=self.channels,
            out_channels=self.channels * (2 if self.learned_variance else 1),
            block_out_channels=self.widths,
            layers_per_block=self.blocks,
            down_block_types=down,
            up_block_types=up[::-1],
            downsample_type=sampling,
            upsample_type=sampling,
            attention_head_dim=HEAD_WIDTH,
            norm_num_groups=_GROUPS,
            attn_norm_num_groups=_GROUPS,
            resnet_time_scale_shift="scale_shift" if self.scale_shift else "default",
        )


def unet_of(state: State) -> UNet2DModel:
    """The U-Net with these weights.

    Raises:
        UserError: weights are missing, left over or of another shape; the sentence has no end and no subject.
    """
    try:
        layout = Layout.of(state)
        network = layout.network()
        network.load_state_dict(_renamed(state, layout))
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"its weights are not those of one whole U-Net: {reason}") from error
    return network


def _renamed(state: State, layout: Layout) -> dict[str, Tensor]:
    """The weights by their names in diffusers."""
    by_layer: dict[str, dict[str, Tensor]] = {}
    places = dict(_places(layout))
    for name, value in state.items():
        layer = next((part for part in _prefixes(name) if part in places), None)
        if layer is None:
            raise ValueError(f"nothing is known of {name}")
        by_layer.setdefault(layer, {})[name[len(layer) + 1 :]] = value
    renamed: dict[str, Tensor] = {}
    for layer, weights in by_layer.items():
        translated = _attention(weights) if "qkv.weight" in weights else _plain(weights)
        renamed.update({f"{places[layer]}.{name}": value for name, value in translated.items()})
    return renamed


def _places(layout: Layout) -> Iterator[tuple[str, str]]:
    """The layers of the code and their places in diffusers; some that a network lacks are among them.

    The code numbers the blocks through, and a change of resolution on the way down is a block of its own; on
    the way up it is the last layer of a block.
    """
    yield "input_blocks.0.0", "conv_in"
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    levels, blocks = len(layout.widths), layout.blocks
    for level, attended in enumerate(layout.attention):
        first, up = 1 + level * (blocks + 1), levels - 1 - level
        for j in range(blocks):
            yield f"input_blocks.{first + j}.0", f"down_blocks.{level}.resnets.{j}"
            yield f"input_blocks.{first + j}.1", f"down_blocks.{level}.attentions.{j}"
        if level < levels - 1:
            yield f"input_blocks.{first + blocks}.0", f"down_blocks.{level}.downsamplers.0"
        first = up * (blocks + 1)
        for j in range(blocks + 1):
            yield f"output_blocks.{first + j}.0", f"up_blocks.{up}.resnets.{j}"
            if attended:
                yield f"output_blocks.{first + j}.1", f"up_blocks.{up}.attentions.{j}"
        if level > 0:
            yield f"output_blocks.{first + blocks}.{1 + attended}", f"up_blocks.{up}.upsamplers.0"


def _plain(weights: State) -> dict[str, Tensor]:
    """A residual block, a convolution or a linear layer."""
    names = {**_RESIDUAL, "op": "conv"}
    renamed = {}
    for name, value in weights.items():
        module, _, part = name.rpartition(".")
        renamed[f"{names.get(module, module)}.{part}".lstrip(".")] = value
    return renamed


def _attention(weights: State) -> dict[str, Tensor]:
    """An attention block, whose queries, keys and values are stored together, head after head."""
    renamed = {}
    for part in ("weight", "bias"):
        joint = weights[f"qkv.{part}"]
        rest = joint.shape[1:2]
        heads = joint.reshape(-1, 3, HEAD_WIDTH, *rest)
        for i, name in enumerate("qkv"):
            renamed[f"to_{name}.{part}"] = heads[:, i].reshape(-1, *rest)
        renamed[f"group_norm.{part}"] = weights[f"norm.{part}"]
    renamed["to_out.0.weight"] = weights["proj_out.weight"].flatten(1)
    renamed["to_out.0.bias"] = weights["proj_out.bias"]
    return renamed


def _prefixes(name: str) -> list[str]:
    """The modules that the weight `name` may be in, the innermost first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _index(name: str) -> int:
    return int(name.split(".")[1])


def _enlarges(state: State, index: int) -> bool:
    """Whether a layer after the first of block `index` on the way up doubles the resolution."""
    suffixes = ("in_layers.0.weight", "conv.weight")
    return any(f"output_blocks.{index}.{i}.{suffix}" in state for i in (1, 2) for suffix in suffixes)
