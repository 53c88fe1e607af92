"""How much faster the integrations make the functions they replace: `python -m benchmarks.integrations`.

Against the stand-ins of the tests, which compute what the projects do in the same way. Processor time of one
thread, medians; a row takes turns, so that other work on the machine meets both.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from latentdem_ext.integrations import diffusers as fast_diffusers
from latentdem_ext.integrations import dps, fastem

STAND_INS = Path(__file__).resolve().parents[1] / "tests/latentdem_ext/integrations/stand_ins"

Row = tuple[str, Any, Any, Callable[[], object]]


def stand_in(name: str) -> Any:
    """A module of tests/latentdem_ext/integrations/stand_ins."""
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", STAND_INS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).square().sum(), x)[0]


def rows() -> Iterator[Row]:
    """The name of a row, the integration, the module it is applied to, and a call."""
    em, measurements = stand_in("fastem"), stand_in("dps")
    kernel = torch.rand(1, 1, 64, 64)
    kernel = kernel / kernel.sum()
    x, y = torch.rand(2, 1, 3, 256, 256)
    denoiser = torch.nn.Conv2d(2, 1, 3, padding=1).requires_grad_(False)

    def m_step() -> Tensor:
        return em.HQS_ker(y, x, 0.02, kernel, denoiser=denoiser, beta=5e6, n_iter=20, ksize=64)

    otf = em.p2o(kernel, (256, 256))
    yield (
        "fft_blur, K = 64, and gradient",
        fastem,
        em,
        lambda: with_gradient(lambda v: em.fft_blur(v, kernel), x),
    )
    yield "data_solution_deblur", fastem, em, lambda: em.data_solution_deblur(otf, x, y, 2000.0)
    yield "HQS_ker, 20 iterations, K = 64", fastem, em, m_step
    yield "kernel_shift, K = 64", fastem, em, lambda: em.kernel_shift(kernel[0, 0].numpy(), 1)
    for size in (9, 61):
        blur = measurements.Blurkernel(kernel_size=size)
        yield (
            f"Blurkernel, K = {size}, and gradient",
            dps,
            measurements,
            lambda blur=blur: with_gradient(blur, x),
        )
    blind, small = measurements.BlindBlurOperator("cpu"), kernel[..., :33, :33]
    yield (
        "BlindBlurOperator, K = 33, and gradient",
        dps,
        measurements,
        lambda: with_gradient(lambda v: blind.apply_kernel(v, small), x),
    )
    resizer = measurements.Resizer((1, 3, 256, 256), 0.25)
    yield "super-resolution x4, and gradient", dps, measurements, lambda: with_gradient(resizer, x)
    z, eps = torch.randn(2, 8, 4, 64, 64)
    for kind in (diffusers.DDIMScheduler, diffusers.DDPMScheduler):
        scheduler = kind(clip_sample=False)
        scheduler.set_timesteps(50)
        step = lambda scheduler=scheduler: scheduler.step(eps, 500, z)  # noqa: E731
        yield f"{kind.__name__}.step, 8 x 4 x 64 x 64", fast_diffusers, None, step


def seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| function | original, ms | accelerated, ms | ratio |\n|---|---|---|---|")
    for name, integration, module, call in rows():
        slow, fast = [], []
        call()
        for _ in range(7):
            slow.append(seconds(call))
            with integration.accelerate(module):
                call()
                fast.append(seconds(call))
        before, after = statistics.median(slow), statistics.median(fast)
        print(f"| {name} | {1e3 * before:.3g} | {1e3 * after:.3g} | {before / after:.1f} |", flush=True)


if __name__ == "__main__":
    main()
