"""Shared by all calls of native code: which tensors a backend takes, and how they are passed.

The compiled modules take addresses and sizes. Tensors stay alive as arguments of the call that needs them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import _backends

_MAX_POINTS = 2**30  # of an image that the CUDA kernels take


def plain(tensor: Tensor) -> Tensor:
    """`tensor` as native code reads it: contiguous, without lazy conjugation or negation."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def plain_arguments(arguments: dict[str, Any], double: tuple[str, ...] = ()) -> dict[str, Any]:
    """`arguments` with plain tensors, those named in `double` in float64."""
    converted = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            converted[name] = plain(value.double() if name in double else value)
    return converted


def call_cpp(function: str, **arguments: Any) -> None:
    """Call a function of `_cpu` on PyTorch's number of threads. None is passed as an absent tensor."""
    getattr(_backends.cpu, function)(**_addresses(arguments), threads=torch.get_num_threads())


def call_cuda(function: str, **arguments: Any) -> None:
    """Launch a function of `_cuda` on the device and the current stream of its tensors."""
    tensor = next(value for value in arguments.values() if isinstance(value, Tensor))
    # PyTorch leaves a device alone that is current but not in use, where `_cuda` would start it afterwards.
    with torch.cuda.device_of(tensor):
        getattr(_backends.cuda, function)(**_addresses(arguments), **_device_and_stream(tensor.device))


def workspace(function: str, like: Tensor, **sizes: int) -> Tensor:
    """Memory that a function of `_cuda` works in, on the device of `like`."""
    return like.new_empty(getattr(_backends.cuda, f"{function}_workspace")(**sizes), dtype=torch.uint8)


def _addresses(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: _address(value) for name, value in arguments.items()}


def _address(value: Any) -> Any:
    if isinstance(value, list):
        return [_address(element) for element in value]
    return value.data_ptr() if isinstance(value, Tensor) else 0 if value is None else value


def _device_and_stream(device: torch.device) -> dict[str, int | None]:
    return {"device": device.index, "stream": torch.cuda.current_stream(device).cuda_stream}


def cpp_refusal(name: str, tensor: Tensor, *_: Any, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> str:
    """Why the compiled module does not take the tensor, "" if it does."""
    if tensor.device.type != "cpu":
        return f"{name} is on {tensor.device}, not in CPU memory"
    if tensor.dtype not in dtypes:
        return f"{name} is {_short(tensor.dtype)}, not {' or '.join(map(_short, dtypes))}"
    return ""


def plane_refusal(name: str, image: Tensor, *_: Any) -> str:
    """Why the compiled module cannot transform images (B, C, H, W) as a whole, "" if it can."""
    refusal, (height, width) = cpp_refusal(name, image), image.shape[-2:]
    if refusal or _backends.cpu is None:
        return refusal
    for side, count in (("rows", height), ("columns", width)):
        if count % 2 or not _backends.cpu.has_fft(count):
            return f"{name} has {count} {side}: odd, or with a prime factor above 13"
    return ""


def cuda_refusal(name: str, tensor: Tensor, *_: Any) -> str:
    """Why the CUDA kernels do not take the image or kernel, "" if they do."""
    if tensor.device.type != "cuda":
        return f"{name} is on {tensor.device}, not on a CUDA device"
    if tensor.dtype != torch.float32:
        return f"{name} is {_short(tensor.dtype)}, not float32"
    if tensor.shape[-2] * tensor.shape[-1] > _MAX_POINTS:
        return f"{name} has more than {_MAX_POINTS} points, more than the CUDA kernels take"
    return _device_refusal(tensor.device)


def grid_refusal(name: str, image: Tensor, *_: Any) -> str:
    """Why the CUDA kernels that transform whole images (B, C, H, W) do not take them, "" if they do."""
    refusal, (height, width) = cuda_refusal(name, image), image.shape[-2:]
    if refusal or _backends.cuda is None or _backends.cuda.has_grid(height, width):
        return refusal
    return f"{name} is {height} x {width}: a side above 1260 pixels, or with a prime factor above 31"


@cache
def _device_refusal(device: torch.device) -> str:
    if _backends.cuda is None:
        return ""  # `backends()` gives the reason
    major, minor = torch.cuda.get_device_capability(device)
    oldest = _backends.cuda.oldest_architecture
    if 10 * major + minor >= oldest:
        return ""
    return f"{device} has compute capability {major}.{minor}, the module was built for {oldest / 10} and newer"


def triton_refusal(name: str, tensor: Tensor, *_: Any) -> str:
    """Why the Triton kernels do not take the tensor, "" if they do.

    Tensors in CPU memory are taken for tests only: on request, by Triton's interpreter.
    """
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"{name} is {_short(tensor.dtype)}, not float16, bfloat16 or float32"
    interpreted = tensor.device.type == "cpu" and _backends.triton_interprets()
    if tensor.device.type != "cuda" and not (interpreted and _backends.requested_backend() == "triton"):
        return f"{name} is on {tensor.device}, not on a CUDA device"
    return ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
