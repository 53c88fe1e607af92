"""The operations, the arguments they are compared and timed with, and the error of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference
from latentdem_ext._folded_weights import folded
from latentdem_ext._registry import OPERATIONS

HALF = (torch.float16, torch.bfloat16)
COMPILED = "torch.compile(reference)"
ITERATIONS = 5  # of conjugate gradients, which photographs need to the usual tolerance
WAITING = (
    "masked_proximal",
    "masked_kernel_solve",
)  # their definitions wait for the device, so no graph has them
# What there is without a kernel, by the operation that falls back on it.
FALLBACKS = {"upsample_conv": "folded", "hqs_m_step": "separate operations"}
DENOISER = (2, 32, 32, 32, 32, 1)  # channels before and after each of its layers
Values = Tensor | tuple[Tensor, ...]


def transposed_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`upsample_conv` as one transposed convolution, by the algorithm that cuDNN measures to be its fastest."""
    with torch.backends.cudnn.flags(benchmark=True, allow_tf32=False):
        return F.conv_transpose2d(x, folded(weight, x.dtype), bias, stride=2, padding=1)


# By operation: what a library has for the same, which this package does not call in this way.
LIBRARIES: dict[str, dict[str, Callable[..., Values]]] = {
    "upsample_conv": {"conv_transpose2d": transposed_convolution}
}


@dataclass(frozen=True)
class Case:
    """An operation and its arguments."""

    operation: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def dtype(self) -> torch.dtype:
        return self.arguments[0].dtype

    @property
    def name(self) -> dict[str, str]:
        """What tells the case from others, in every row about it."""
        x = self.arguments[0]
        shape = " x ".join(map(str, x.shape))
        if x.dim() > 2 and not x.is_contiguous():
            shape += ", channels last"
        numbers = [str(a) for a in self.arguments[1:] if isinstance(a, int)] + [
            f"{name}={value}" for name, value in self.options.items() if not isinstance(value, Tensor)
        ]
        return {
            "operation": self.operation,
            "shape": ", ".join([shape, *numbers]),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def bytes(self) -> int:
        """Size of the arguments, which are read at least once."""
        return sum(t.numel() * t.element_size() for t in tensors((self.arguments, self.options)))

    @property
    def libraries(self) -> dict[str, Callable[..., Values]]:
        """Names and functions of what libraries have for this operation."""
        return LIBRARIES.get(self.operation, {})

    def run(self, variant: str) -> Values:
        """The result of one of `variants`, or on the backend that the operation chooses for itself: ""."""
        if variant == FALLBACKS.get(self.operation):
            return OPERATIONS[self.operation].fallback(*self._of_schema(), **self.options)
        if variant == "reference":
            return getattr(reference, self.operation)(*self.arguments, **self.options)
        if variant in self.libraries:
            return self.libraries[variant](*self.arguments, **self.options)
        with ext.use_backend(variant) if variant else nullcontext():
            return getattr(ext, self.operation)(*self.arguments, **self.options)

    def _of_schema(self) -> list[Any]:
        """The arguments as the operation is registered, factors as two tensors."""
        parts = (a if isinstance(a, ext.HQSFactors) else (a,) for a in self.arguments)
        return [part for each in parts for part in each]

    def variants(self) -> list[str]:
        """The reference, every backend that takes the arguments, and ways of PyTorch and of libraries."""
        operation, found = OPERATIONS[self.operation], ["reference"]
        for backend in operation.backends:
            if ext.backends()[backend].available:
                try:
                    self.run(backend)
                except RuntimeError as refused:
                    print(f"{self.operation} not on {backend}: {refused}")
                else:
                    found.append(backend)
        return [*found, *([FALLBACKS[self.operation]] if operation.fallback else []), *self.libraries]

    def chosen(self) -> str:
        """The backend that the operation chooses for itself."""
        with ext.record_backends() as record:
            self.run("")
        backend = record.get(self.operation, ["reference"])[0]
        return FALLBACKS.get(self.operation, backend) if backend == "reference" else backend

    def precise(self) -> Values:
        """The result of the reference in float64."""
        arguments, options = _double((self.arguments, self.options))
        return getattr(reference, self.operation)(*arguments, **options)

    def allowed(self, expected: Values) -> float:
        """The largest error that a result may have: twice that of the reference in the same precision.

        But no less than 1e-5, or in half precision the rounding of a single number.
        """
        least = torch.finfo(self.dtype).eps / 2 if self.dtype in HALF else 1e-5
        return max(least, 2 * error_of(self.run("reference"), expected))

    def copy(self) -> Case:
        """The same values in other memory."""
        return replace(self, arguments=_map(self.arguments, _clone), options=_map(self.options, _clone))


def case(operation: str, *arguments: Any, **options: Any) -> Case:
    return Case(operation, arguments, options)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: _map(element, function) for name, element in value.items()}
    if isinstance(value, tuple):
        parts = (_map(element, function) for element in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _clone(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.preserve_format)


def _double(values: Any) -> Any:
    return _map(values, lambda t: t.to(torch.complex128 if t.is_complex() else torch.float64))


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested tuples and dictionaries."""
    if isinstance(values, Tensor):
        return [values]
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def error_of(results: Values, expected: Values) -> float:
    """The largest ||result - expected|| / ||expected|| over all samples and results; infinite for NaN."""
    worst = 0.0
    for one, other in zip(tensors(results), tensors(expected), strict=True):
        one, other = (values.double().reshape(len(values), -1) for values in (one, other))
        ratios = (one - other).norm(dim=1) / other.norm(dim=1).clamp(min=1e-30)
        worst = max(worst, float("inf") if ratios.isnan().any() else float(ratios.max()))
    return worst


class Maker:
    """Random tensors on a device, and cases made of them; `iterations` are those of an M-step."""

    def __init__(self, device: str, iterations: int = 20) -> None:
        self.device, self.iterations = device, iterations

    def random(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=self.device).to(dtype)

    def full(self, batch: int, value: float) -> Tensor:
        return torch.full((batch,), value, device=self.device)

    def photographs(self, batch: int, channels: int, height: int, width: int, size: int) -> Iterator[Case]:
        """The operations of blur and kernel for images (B, C, H, W) and kernels of `size` pixels a side."""
        x, y = self.random(2, batch, channels, height, width).tanh()
        kernel = ext.project_kernel(self.random(batch, 1, size, size))
        weight, y_hat = self.full(batch, 1e3), torch.fft.rfft2(y)
        yield case("blur", x, kernel)
        yield case("blur_fidelity", x, kernel, y, y_hat=y_hat)
        yield case("blur_proximal", x, kernel, y, self.full(batch, 0.01), y_hat=y_hat)
        yield case("hqs_prepare", x[:, None], y, weight, size, y_hat=y_hat)
        with ext.use_backend("reference"):
            factors = ext.hqs_prepare(x[:, None], y, weight, size)
        yield case("hqs_kernel_update", kernel, factors)
        yield case("hqs_kernel_update", kernel, factors, iterations=self.iterations)
        work: dict[str, Any] = {"relative": True, "iterations": self.iterations}
        yield case("hqs_m_step", kernel, factors, *self.denoiser(), self.full(batch, 0.05), **work)
        yield case("project_kernel", kernel - kernel.mean())
        mask, work = self.frame(height, width, size), {"tolerance": 0.0, "iterations": ITERATIONS}
        yield case("masked_proximal", x, kernel, y, mask, self.full(batch, 0.01), **work)
        right = reference.blur_kernel_gradient(x, mask * y, size)
        yield case("masked_kernel_solve", x, mask, weight, right, None, **work)

    def denoiser(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Weights and biases of a kernel denoiser of the shape of the shipped one, laid out as it is."""
        sizes = list(zip(DENOISER[1:], DENOISER[:-1], strict=True))
        weights = (self.random(o, i, 3, 3) * (2 / (9 * i)) ** 0.5 for o, i in sizes)
        laid_out = tuple(weight.contiguous(memory_format=torch.channels_last) for weight in weights)
        return laid_out, tuple(0.1 * self.random(o) for o, _ in sizes)

    def frame(self, height: int, width: int, size: int) -> Tensor:
        """Mask (1, 1, H, W) of the pixels beside which a kernel of `size` pixels a side stays inside."""
        mask = torch.zeros(1, 1, height, width, device=self.device)
        rows, columns = (min(size // 2, side // 4) for side in (height, width))
        mask[..., rows : height - rows, columns : width - columns] = 1
        return mask

    def latents(self, batch: int, side: int, dtype: torch.dtype) -> Iterator[Case]:
        """The operations of a diffusion step for latents (B, 4, side, side)."""
        z_t, eps, noise = (self.random(batch, 4, side, side, dtype=dtype) for _ in range(3))
        now, before = self.full(batch, 0.5), self.full(batch, 0.6)
        yield case("dps_step", z_t, eps, now, before, gradient=noise, step_size=now)
        yield case("renoise", z_t, eps, now, before, noise, now)

    def norm(self, channels: int, side: int, dtype: torch.dtype, last: bool = True) -> Case:
        """Group normalisation of one feature map (1, channels, side, side)."""
        x = self.random(1, channels, side, side, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        scale, shift = self.random(2, channels, dtype=dtype)
        return case("group_norm_silu", x, min(32, channels), scale, shift)

    def upsample(self, channels: int, side: int, dtype: torch.dtype) -> Case:
        """Upsampling and convolution of one feature map (1, channels, side, side)."""
        x = self.random(1, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight = self.random(channels, channels, 3, 3) / (3 * channels**0.5)
        return case("upsample_conv", x, weight.to(dtype), self.random(channels, dtype=dtype))
