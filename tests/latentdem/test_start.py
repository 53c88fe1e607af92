"""What is imported before it is needed: every package here takes tenths of a second or more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import pytest

SLOW = (
    *("torch", "numpy", "scipy", "skimage", "PIL", "matplotlib", "diffusers", "transformers", "latentdem_ext"),
    *("ray", "pyarrow", "fsspec"),
)
MAIN = "import sys; sys.argv[1:] = {arguments!r}; from latentdem.cli import main\nmain()"
LOAD = """
import torch
from latentdem.priors import load_prior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
prior = load_prior("embedded", torch.device("cpu"))
z = prior.encode(torch.zeros(1, 3, 16, 16))
prior.decode(prior.predict_noise(z, 500), 16, 16)
load_kernel_denoiser().denoise(torch.rand(1, 1, 9, 9), 0.1)
"""
LOAD_3D = """
import torch
from latentdem.three_d.priors.loading import load_view_prior
prior = load_view_prior("embedded-3d", torch.device("cpu"))
"""


def imported_by(code: str, status: int = 0) -> set[str]:
    """The packages that a new process has imported when `code` has run, and ended with `status`."""
    report = (
        "import atexit, sys; atexit.register(lambda: print('\\n', *{n.split('.')[0] for n in sys.modules}))\n"
    )
    command = [sys.executable, "-c", report + code]
    # Not here, where an uncompiled copy of the operations may lie.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=gettempdir())
    assert done.returncode == status, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_imports_nothing_slow() -> None:
    assert not imported_by("import latentdem; dir(latentdem)").intersection((*SLOW, "typer", "rich"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["deblur", "--help"], 0),
        (["deblur", "--no-such-option", "photo.png"], 2),
        (["deblur", "photo.png", "--seed", "-1"], 2),
        (["no-such-command"], 2),
    ],
)
def test_help_and_wrong_arguments_import_nothing_slow(arguments: list[str], status: int) -> None:
    assert not imported_by(MAIN.format(arguments=arguments), status).intersection(SLOW)


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["missing", "damaged"])
@pytest.mark.parametrize("command", [["deblur"], ["restore", "--operator", "disk"]], ids=["deblur", "restore"])
def test_a_file_that_cannot_be_read_is_reported_before_pytorch_is_imported(
    tmp_path: Path, command: list[str], content: bytes | None
) -> None:
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    code = MAIN.format(arguments=[command[0], str(path), *command[1:]])
    assert "torch" not in imported_by(code, status=1)


@pytest.mark.parametrize("code", [LOAD, LOAD_3D], ids=["photographs", "views"])
def test_the_embedded_networks_run_without_diffusers(code: str) -> None:
    imported = imported_by(code)
    assert "torch" in imported
    assert not imported.intersection(("diffusers", "transformers", "huggingface_hub", "matplotlib"))
