"""`accelerate_vae`: finds the modules that operations can replace, and restores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import MethodType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _layers

_DTYPES = (None, torch.float16, torch.bfloat16, torch.float32)


class AcceleratedVAE:
    """The changes of `accelerate_vae`; `remove` undoes them, and so does the end of a `with` block."""

    def __init__(self, vae: nn.Module, patches: list[_Patch], dtype: torch.dtype | None) -> None:
        self.vae = vae
        self._modules = [patch.module for patch in patches]
        for module, forward in patches:
            # Set on the instance: names, parameters and classes do not change, and a copy is accelerated, too.
            module.__dict__["forward"] = MethodType(forward, module)
        self._originals = [_convert(parameter, dtype) for parameter in vae.parameters()]

    def remove(self) -> None:
        """Restores the module bit by bit; a second call does nothing."""
        for module in self._modules:
            module.__dict__.pop("forward", None)
        for original in self._originals:
            original.restore()
        self._modules, self._originals = [], []

    def __enter__(self) -> nn.Module:
        return self.vae

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def accelerate_vae(
    vae: nn.Module, *, dtype: torch.dtype | None = None, checkpoint: bool = False
) -> AcceleratedVAE:
    """Lets `group_norm_silu`, `upsample_conv` and leaner convolutions do the work of an autoencoder's modules.

    For diffusers' autoencoders of images (`AutoencoderKL`, `VQModel` and others with their blocks) and for
    modules in which a 3 x 3 convolution follows nearest upsampling by 2 in an `nn.Sequential`. Encoder and
    decoder, forward and gradients. Nothing but time, memory and rounding changes: names, parameters,
    configuration and methods of the module stay, it can be saved, moved, copied and compiled. Its
    4-dimensional weights become channels last.

    While the weights require no gradient (`vae.requires_grad_(False)`), a residual block keeps two tensors for
    the gradient of its input instead of six.

    Args:
        vae: the autoencoder; changed in place until `remove`.
        dtype: the type of the parameters meanwhile, None for their own. As after `vae.to(dtype)`, inputs must
            have it; statistics of half precision are float32. The original parameters are held until `remove`.
        checkpoint: keep only the input of each residual block for the gradient, and compute the block again.

    Returns:
        The handle that undoes it: `handle.remove()`, or `with accelerate_vae(vae) as vae: ...`.

    Raises:
        TypeError: `vae` is not a module, or `dtype` not float16, bfloat16, float32 or None.
        ValueError: there is nothing to accelerate, or the `forward` of one of its modules has been replaced
            before, by this function or by hooks such as those of sequential offloading.
    """
    if not isinstance(vae, nn.Module):
        raise TypeError(f"vae must be a torch.nn.Module, not {type(vae).__name__}")
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be torch.float16, torch.bfloat16, torch.float32 or None, not {dtype!r}")
    patches = list(_patches(vae, checkpoint))
    if not any(patch.forward in _OPERATIONS for patch in patches):
        raise ValueError(
            f"there is nothing to accelerate in {type(vae).__name__}: no residual block of diffusers with "
            "SiLU, no nearest upsampling by 2 before a 3 x 3 convolution"
        )
    for module, _ in patches:
        if "forward" in module.__dict__:
            raise ValueError(
                f"the forward of a {type(module).__name__} in {type(vae).__name__} has been replaced already: "
                "remove() what accelerate_vae returned, or accelerate before hooks such as those of sequential "
                "offloading are added"
            )
    return AcceleratedVAE(vae, patches, dtype)


class _Patch(NamedTuple):
    module: Any
    forward: Callable[..., Tensor]


_OPERATIONS = (_layers.normalise_and_activate, _layers.upsample_and_convolve)


def _patches(vae: nn.Module, checkpoint: bool) -> Iterator[_Patch]:
    special = {id(patch.module): patch for module in vae.modules() for patch in _special(module, checkpoint)}
    yield from special.values()
    for module in vae.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and id(module) not in special:
            yield _Patch(module, _layers.convolve_3_x_3 if _is_3_x_3(module) else _layers.convolve)


def _special(module: nn.Module, checkpoint: bool) -> Iterator[_Patch]:
    """The patches of one module and its children."""
    if _is_diffusers(module, "ResnetBlock2D") and _is_plain_block(module):
        yield _Patch(module.norm1, _layers.normalise_and_activate)
        yield _Patch(module.norm2, _layers.normalise_and_activate)
        yield _Patch(module, _layers.checkpointed_residual_block if checkpoint else _layers.residual_block)
    elif _is_diffusers(module, "Encoder") or _is_diffusers(module, "Decoder"):
        if _is_norm(module.conv_norm_out) and isinstance(module.conv_act, nn.SiLU):
            yield _Patch(module.conv_norm_out, _layers.normalise_and_activate)
            yield _Patch(module.conv_act, _layers.identity)
    elif _is_diffusers(module, "Upsample2D"):
        if module.norm is None and module.interpolate and _is_3_x_3(getattr(module, "conv", None)):
            yield _Patch(module.conv, _layers.upsample_and_convolve)
            yield _Patch(module, _layers.diffusers_upsample)
    elif isinstance(module, nn.Sequential):
        for first, second in pairwise(module):
            if isinstance(first, nn.Upsample) and _doubles(first) and _is_3_x_3(second):
                yield _Patch(first, _layers.identity)
                yield _Patch(second, _layers.upsample_and_convolve)
        if checkpoint:
            # A part that has parts is a block, not a layer.
            yield from (_Patch(part, _layers.checkpointed) for part in module if any(part.children()))


def _is_diffusers(module: Any, name: str) -> bool:
    """Whether a module is of a class of diffusers, by name: latentdem_ext does not depend on diffusers."""
    return any(
        base.__name__ == name and base.__module__.startswith("diffusers.") for base in type(module).__mro__
    )


def _is_plain_block(block: Any) -> bool:
    """Whether a block has no time embedding and no resampling, as in all autoencoders."""
    return (
        block.time_emb_proj is None
        and block.time_embedding_norm in ("default", "group")
        and block.upsample is None
        and block.downsample is None
        and isinstance(block.nonlinearity, nn.SiLU)
        and _is_norm(block.norm1)
        and _is_norm(block.norm2)
    )


def _is_norm(module: object) -> bool:
    return type(module) is nn.GroupNorm and module.affine


def _is_3_x_3(module: object) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.groups == 1
        and module.padding_mode == "zeros"
    )


def _doubles(upsample: nn.Upsample) -> bool:
    return upsample.mode == "nearest" and upsample.size is None and upsample.scale_factor in (2, (2, 2))


class _Original(NamedTuple):
    parameter: nn.Parameter
    dtype: torch.dtype
    stride: tuple[int, ...]
    values: Tensor | None  # the values before, if another dtype has rounded them
    version: int  # of the parameter after the change; loading new weights changes it again

    def restore(self) -> None:
        """Restore the parameter's type, layout and values."""
        now = self.parameter.data
        if self.values is not None and self.parameter._version == self.version:
            now = self.values
        before = torch.empty_strided(now.shape, self.stride, dtype=self.dtype, device=self.parameter.device)
        self.parameter.data = before.copy_(now)


def _convert(parameter: nn.Parameter, dtype: torch.dtype | None) -> _Original:
    before = parameter.data
    layout = torch.channels_last if before.dim() == 4 else torch.preserve_format
    rounds = dtype is not None and dtype != before.dtype
    parameter.data = before.to(dtype=dtype or before.dtype, memory_format=layout)
    return _Original(parameter, before.dtype, before.stride(), before if rounds else None, parameter._version)
