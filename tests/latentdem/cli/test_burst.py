"""`latentdem burst`: what it refuses, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem
from latentdem.io.images import read_image, write_image
from latentdem.io.inputs import open_image
from latentdem.operators.kernels import delta_kernel
from latentdem.output.result import Restored
from latentdem.solver.state import TraceStep


class FakeBurst:
    """Stands in for `latentdem.burst`: leaves out the first photograph and returns the second."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, images: list[Path], **options: Any) -> Restored:
        self.calls.append({"images": images, **options})
        source, used = open_image(images), len(images) - 1
        options["progress"]("restoration", 1, 2)
        kernels = delta_kernel(9).expand(1, used, 9, 9)
        trace = [TraceStep("restoration", 500, torch.tensor([0.02]), kernels)]
        return Restored(
            source.pixels[1:2],
            {"kernels": kernels, "shift": torch.ones(1, used, 2), "rotation": torch.zeros(1, used)},
            source.pixels[1:2],
            torch.tensor([0.01]),
            torch.tensor([0.02]),
            trace,
            {"total": 1.0},
            {"photographs": list(range(2, used + 2))},
            source.pick(slice(1, 2)),
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBurst:
    burst = FakeBurst()
    monkeypatch.setattr(latentdem, "burst", burst, raising=False)
    return burst


@pytest.fixture
def scenes(here: Path, scene: Callable[..., Tensor]) -> list[Path]:
    paths = [Path(f"scene_{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        write_image(path, scene(seed=i))
    return paths


def test_one_picture_is_written_beside_the_first(cli: Any, fake: FakeBurst, scenes: list[Path]) -> None:
    result = cli.run("burst", *scenes, "--kernel-size", 9, "--quality", "fast", "--seed", 3)
    assert cli.names(Path()) == ["scene_0.png", "scene_0_burst.png", "scene_1.png", "scene_2.png"]
    torch.testing.assert_close(read_image(Path("scene_0_burst.png")).pixels, read_image(scenes[1]).pixels)
    call = fake.calls[0]
    assert call["images"] == scenes
    assert (call["kernel_size"], call["quality"], call["seed"]) == (9, "fast", 3)
    assert "scene_1.png" in result.stdout
    assert "+1.00 down, +1.00 right, +0.00 degrees" in result.stdout


def test_extras_and_report(cli: Any, fake: FakeBurst, scenes: list[Path]) -> None:
    cli.run("burst", "scene_*.png", "-o", "out.jpg", "--extras", "more", "--json", "report.json")
    assert cli.names(Path("more")) == ["out_figure.png", "out_kernels.npy", "out_report.json"]
    assert np.load("more/out_kernels.npy").shape == (2, 9, 9)
    report = json.loads(Path("report.json").read_text())
    assert report["status"] == "restored"
    assert [one["photograph"] for one in report["frames"]] == ["scene_1.png", "scene_2.png"]
    assert report["frames"][0] == {"photograph": "scene_1.png", "down": 1.0, "right": 1.0, "degrees": 0.0}


def test_nothing_is_replaced(cli: Any, fake: FakeBurst, scenes: list[Path]) -> None:
    cli.run("burst", *scenes)
    assert "exists already" in cli.sentence("burst", *scenes)
    assert "is an input" in cli.sentence("burst", *scenes, "-o", scenes[2], "--overwrite")
    assert len(fake.calls) == 1
    cli.run("burst", *scenes, "--overwrite")


def test_a_single_photograph_a_folder_and_a_missing_one_are_refused(cli: Any, scenes: list[Path]) -> None:
    assert "two photographs or more" in cli.sentence("burst", scenes[0], scenes[0])
    assert "is made of files" in cli.sentence("burst", scenes[0], ".")
    assert "does not exist" in cli.sentence("burst", scenes[0], "gone.png")


def test_photographs_of_other_sizes_are_refused(
    cli: Any, scenes: list[Path], scene: Callable[..., Tensor]
) -> None:
    write_image(scenes[1], scene(48, 40))
    assert "of one size and kind" in cli.sentence("burst", *scenes)
