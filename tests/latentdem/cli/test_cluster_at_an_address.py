"""`--engine ray --address` with a cluster that was started before, and goes on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler
from torch import Tensor

from latentdem.io.images import write_image
from latentdem.priors import EmbeddedPrior

without_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
pytestmark = [pytest.mark.slow, without_ray]

Scene = Callable[..., Tensor]
TOKEN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Cluster:
    """A cluster that asks for a token.

    Attributes:
        process: of `ray start`, which ends the others of the cluster when it is ended.
        address: of the cluster.
        without: environment of a command without the token.
    """

    process: subprocess.Popen[bytes]
    address: str
    without: dict[str, str]

    def run(self, *arguments: str, token: str | None) -> subprocess.CompletedProcess[str]:
        given = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-m", "latentdem", *arguments, "--engine", "ray", "--address", self.address]
        return subprocess.run(command, env=self.without | given, capture_output=True, text=True, check=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    without |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    folder = tempfile.mkdtemp(prefix="r")  # tmp_path is too long for the sockets in it
    options = ["--head", "--block", f"--port={port}", f"--temp-dir={folder}", "--num-cpus=2"]
    options += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
        env=without | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line.decode())
                if "Ray runtime started" in said[-1]:
                    break
            else:
                raise AssertionError("".join(said))
            yield Cluster(process, f"127.0.0.1:{port}", without)
        finally:
            process.terminate()
            process.communicate(timeout=120)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def arguments(here: Path, scene: Scene, tiny_prior: EmbeddedPrior) -> Sequence[str]:
    Path("photos").mkdir()
    for i in range(3):
        write_image(f"photos/{i}.png", scene(20, 24, seed=i))
    tiny_prior.autoencoder.save_pretrained("prior/autoencoder")
    tiny_prior.unet.save_pretrained("prior/unet")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule).save_pretrained("prior/scheduler")
    np.save("kernel.npy", np.ones((3, 3)) / 9)
    return [
        *("deblur", "photos", "-o", "out", "--prior", "prior", "--kernel", "kernel.npy"),
        *("--steps", "2", "--device", "cpu"),
    ]


def test_a_cluster_that_asks_for_its_token(cluster: Cluster, arguments: Sequence[str]) -> None:
    refused = cluster.run(*arguments, token=None)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith(f"The Ray cluster at {cluster.address} wants its token")
    assert not list(Path("out").iterdir())
    for options in ([], ["--overwrite"]):
        done = cluster.run(*arguments, *options, token=TOKEN)
        assert done.returncode in (0, 3), done.stderr
        assert "restored       3" in done.stdout
        assert ".cc:" not in done.stderr  # messages of Ray
        assert len(list(Path("out").iterdir())) == 3
    assert cluster.process.poll() is None
