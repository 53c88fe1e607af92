"""Whatever a caller has set in PyTorch and Python, results are the same, and the settings stay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior, load_prior

Scene = Callable[..., Tensor]


@contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def other_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


CONTEXTS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64": double_by_default,
    "default device": other_device,
}


@pytest.mark.parametrize("name", list(CONTEXTS))
@pytest.mark.parametrize("task", ["known kernel", "blind", "posterior", "gamma"])
def test_results_do_not_depend_on_the_callers_context(
    scene: Scene, tiny_prior: EmbeddedPrior, name: str, task: str
) -> None:
    y, kernel = scene(20, 24), gaussian_kernel(5, 1)

    def run() -> Tensor:
        options = {"prior": tiny_prior, "steps": 3, "device": "cpu"}
        if task == "known kernel":
            return latentdem.deblur(y, kernel=kernel, **options).tensor
        if task == "gamma":
            return latentdem.restore(y, "gamma", noise_sigma=0.02, **options).tensor
        e_step = "posterior" if task == "posterior" else "proximal"
        return latentdem.deblur(y, kernel_size=5, e_step=e_step, noise_sigma=0.02, **options).tensor

    expected = run()
    with CONTEXTS[name]():
        found = run()
    assert torch.equal(found, expected)
    assert not found.is_inference()


@pytest.mark.parametrize("task", ["posterior", "gamma"])
def test_images_and_prior_made_in_inference_mode(task: str) -> None:
    with torch.inference_mode():
        prior = load_prior("embedded", torch.device("cpu"))
        y = 0.5 * torch.rand(1, 3, 20, 24) - 0.5
        if task == "gamma":
            result = latentdem.restore(y, "gamma", prior=prior, noise_sigma=0.02, steps=2, device="cpu")
        else:
            result = latentdem.deblur(
                y, 5, prior=prior, e_step="posterior", noise_sigma=0.02, steps=4, device="cpu"
            )
    assert torch.isfinite(result.tensor).all()


@pytest.mark.parametrize("device", ["mps", "cuda:99", "meta", "xpu", torch.device("meta")])
def test_device_that_is_not_there(scene: Scene, tiny_prior: EmbeddedPrior, device: str) -> None:
    with pytest.raises(
        latentdem.UserError, match=r"No (MPS|CUDA) device|no CUDA device|Unknown device"
    ) as caught:
        latentdem.deblur(scene(), 9, prior=tiny_prior, device=device)
    assert "\n" not in str(caught.value)


PROGRAM = """
import os, sys, warnings
import torch, latentdem
torch.set_num_threads(2)
y = torch.rand(1, 3, 96, 96) * 1.5 - 1
run = lambda: latentdem.deblur(y, kernel=torch.ones(3, 3), steps=2, noise_sigma=0.02, device="cpu")
run()
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    os._exit(0 if any("spawn" in str(one.message) for one in caught) and torch.get_num_threads() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_does_not_hang(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        timeout=600,  # only a hang takes so long, also on a busy machine
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()


@pytest.mark.slow
def test_python_without_docstrings_and_assertions(tmp_path: Path) -> None:
    program = (
        "import latentdem, torch\n"
        "latentdem.deblur(torch.rand(1, 1, 32, 32) - 0.5, 5, steps=2, noise_sigma=0.02, device='cpu')\n"
        "from latentdem.cli import app\n"
        "from typer.testing import CliRunner\n"
        "print(CliRunner().invoke(app, ['deblur', '--help']).exit_code)\n"
    )

    def run(beginning: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-OO", "-c", beginning + program]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    bare = run("import sys; sys.modules['transformers'] = None\n")
    assert bare.stdout.split() == ["0"], bare.stderr
    installed = run("")  # not every version of transformers can be imported without docstrings
    assert installed.returncode == 0 or "use python -O instead of -OO" in installed.stderr.splitlines()[-1]
