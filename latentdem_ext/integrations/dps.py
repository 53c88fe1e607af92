"""DPS (DPS2022/diffusion-posterior-sampling), BlindDPS and what is built on them: the measurement operators.

    from latentdem_ext.integrations import dps

    dps.apply()    # dps.remove() puts everything back

Of the classes in `guided_diffusion.measurements`:

- `Blurkernel` (motion and Gaussian blur) and the `apply_kernel` of `BlindBlurOperator` and `TurbulenceOperator`
  correlate by `latentdem_ext.blur_adjoint` instead of pixel by pixel. Reflected and zero borders stay what they
  are: the padded image lies on a larger grid on which nothing wraps around into the result;
- `Resizer` (super-resolution) is two products with small matrices instead of gathered copies.

Forward and gradient: the conditioning step differentiates through them. What it does besides is one norm and
one difference, which stay as they are. The weights of `Blurkernel` get no gradient, which nothing in these
projects asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks
from .._blur import blur_adjoint
from ..reference import fast_length
from ._integration import Integration, Replacement, expect_equal, expect_parameters, probe

_SMALLEST = 9  # K below which convolving pixel by pixel takes no longer
_METHODS = {
    "Blurkernel": ("forward", "x"),
    "BlindBlurOperator": ("apply_kernel", "data", "kernel"),
    "TurbulenceOperator": ("apply_kernel", "data", "kernel"),
    "Resizer": ("forward", "in_tensor"),
}


def _replacements(module: Any) -> Iterator[Replacement]:
    for name, (method, *parameters) in _METHODS.items():
        kind = getattr(module, name, None)
        if kind is not None:
            original = getattr(kind, method)
            expect_parameters(original, "self", *parameters)
            build, check = _BUILDERS[name]
            replacement = wraps(original)(build(original))
            check(kind, original, replacement)
            yield Replacement(kind, method, replacement)


_integration = Integration("DPS", ("guided_diffusion.measurements",), _replacements)
apply, remove, accelerate = _integration.apply, _integration.remove, _integration.accelerate


def _blurkernel(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, x: Tensor) -> Tensor:
        (weight,) = (parameter.detach() for parameter in self.parameters())
        # Which pads otherwise than DPS in the LatentDEM release, so that kernels with even sides keep the size.
        (border,) = (module for module in self.modules() if isinstance(module, nn.ReflectionPad2d))
        if not _takes(x, weight) or not torch.equal(weight, weight[:1].expand_as(weight)):
            return original(self, x)
        return _correlation(border(x), weight[:1])

    return forward


def _check_blurkernel(kind: Any, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    for size in (_SMALLEST, _SMALLEST + 1):
        with torch.random.fork_rng(devices=[]):
            blur = kind(blur_type="gaussian", kernel_size=size, std=2.0)
        blur.update_weights(probe(size, size))
        expect_equal(_bound(original, blur), _bound(replacement, blur), probe(2, 3, 18, 21))


def _apply_kernel(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply_kernel(self: Any, data: Tensor, kernel: Tensor) -> Tensor:
        if not _takes(data, kernel) or kernel.shape[:2] != (1, 1) or data.shape[1] != 3:
            return original(self, data, kernel)
        before = (kernel.shape[-1] - 1) // 2
        after = kernel.shape[-1] - 1 - before
        return _correlation(F.pad(data, (before, after, before, after)), kernel)

    return apply_kernel


def _check_apply_kernel(kind: Any, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    operator = kind(device="cpu")
    for size in (_SMALLEST, _SMALLEST + 1):
        functions = _bound(original, operator), _bound(replacement, operator)
        # One image, because the originals fail with more.
        expect_equal(*functions, probe(1, 3, 18, 13), probe(1, 1, size, size))


def _resizer(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, in_tensor: Tensor) -> Tensor:
        x = in_tensor
        for dim, taps, weights in zip(self.sorted_dims, self.field_of_view, self.weights, strict=True):
            if weights.dtype != x.dtype:
                return original(self, in_tensor)
            matrix = weights.new_zeros(taps.shape[1], x.shape[dim])
            rows = torch.arange(len(matrix), device=taps.device).expand_as(taps)
            # A tap that is reflected at the border meets a pixel that another one meets, too.
            matrix.index_put_((rows, taps), weights.reshape(taps.shape), accumulate=True)
            x = (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
        return x

    return forward


def _check_resizer(kind: Any, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    for factor in (0.25, 0.5):
        resizer = kind((1, 3, 16, 24), factor)
        expect_equal(_bound(original, resizer), _bound(replacement, resizer), probe(2, 3, 16, 24))


_BUILDERS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "Blurkernel": (_blurkernel, _check_blurkernel),
    "BlindBlurOperator": (_apply_kernel, _check_apply_kernel),
    "TurbulenceOperator": (_apply_kernel, _check_apply_kernel),
    "Resizer": (_resizer, _check_resizer),
}


def _bound(method: Callable[..., Any], instance: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return method(instance, *arguments)

    return wraps(method)(call)


def _takes(image: Tensor, kernel: Tensor) -> bool:
    """Whether the operation takes them, and computes in the precision that the original would."""
    return (
        image.dim() == kernel.dim() == 4
        and image.dtype in _checks.FFT_DTYPES
        and (image.dtype, image.device) == (kernel.dtype, kernel.device)
        and kernel.shape[-2] == kernel.shape[-1] >= _SMALLEST
        and not torch.is_autocast_enabled(image.device.type)
    )


def _correlation(padded: Tensor, kernel: Tensor) -> Tensor:
    """Cross-correlation of (B, C, H, W) with a kernel (1, 1, K, K), where that lies inside the image."""
    size, origin = kernel.shape[-1], kernel.shape[-1] // 2
    height, width = padded.shape[-2:]
    grid = F.pad(padded, (0, fast_length(width) - width, 0, fast_length(height) - height))
    result = blur_adjoint(grid, kernel.expand(padded.shape[0], -1, -1, -1))
    return result[..., origin : origin + height - size + 1, origin : origin + width - size + 1]
