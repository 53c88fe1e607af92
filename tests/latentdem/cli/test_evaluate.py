from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem.io.images import write_image

Scene = Callable[..., Tensor]


def test_evaluate_prints_a_table_with_the_mean(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    (here / "photos").mkdir()
    for i in range(2):
        write_image(here / "photos" / f"{i}.png", scene(seed=i))
    (here / "photos" / "bad.png").touch()
    result = cli.run("evaluate", "photos", "--kernel-size", 9)
    for text in ("0.png", "1.png", "mean", "PSNR", "MNC"):
        assert text in result.stdout
    assert "Skipped: photos/bad.png is empty." in result.stderr
    assert cli.names(here / "photos_evaluation") == [
        "contact_sheet.png",
        "images",
        "metrics.csv",
        "settings.json",
        "summary.json",
    ]
    from latentdem.metrics import lpips_available

    assert ("LPIPS was not measured" in result.stdout) == (not lpips_available()[0])


def test_evaluate_leaves_parts_out(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    Path("photos").mkdir()
    write_image("photos/a.png", scene())
    parts = ("--without", "skipping", "--without", "gluing")
    cli.run("evaluate", "photos", "--kernel-size", 9, "--e-step", "posterior", *parts, "-o", "out")
    assert fake_deblur.calls[0]["without"] == ("gluing", "skipping")
    cli.run("evaluate", "photos", "--kernel-size", 9, "--e-step", "posterior", *parts, "-o", "out")  # resumes
    assert len(fake_deblur.calls) == 1


def test_evaluate_fails_without_a_single_result(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "bad.png").touch()
    assert "is empty" in cli.sentence("evaluate", "photos")


def test_interrupted_evaluate_names_how_to_resume(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    (here / "photos").mkdir()
    for i in range(2):
        write_image(here / "photos" / f"{i}.png", scene(seed=i))
    fake_deblur.fail_at = 1
    text = cli.sentence("evaluate", "photos", "--kernel-size", 9, "-o", "out", status=130)
    assert text == "Interrupted; what is finished is kept in out, and the same command continues."
    fake_deblur.fail_at = None
    cli.run("evaluate", "photos", "--kernel-size", 9, "-o", "out")
    assert len(fake_deblur.calls) == 2
    assert "seed 0 instead of 1" in cli.sentence(
        "evaluate", "photos", "--kernel-size", 9, "-o", "out", "--seed", 1
    )


def test_evaluate_refuses_a_missing_device(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "No CUDA device" in cli.sentence("evaluate", "..", "--device", "cuda")
    assert cli.names(here) == []
