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
    result = cli.run("evaluate", "photos", "--kernel-size", 9, status=4)
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


@pytest.fixture
def levin(here: Path, scene: Scene) -> Path:
    """A folder of one blurred picture of Levin's set, without kernels."""
    folder = here / "levin"
    for part in ("blurred", "sharp"):
        (folder / part).mkdir(parents=True)
    write_image(folder / "sharp" / "im1.png", scene(60, 60, channels=1))
    write_image(folder / "blurred" / "im1_kernel1_img.png", scene(60, 60, channels=1))
    return folder


def test_benchmark_uses_the_defaults_of_deblur_but_for_what_is_given(
    cli: Any, levin: Path, fake_deblur: Any
) -> None:
    run = ("evaluate", "levin", "--protocol", "levin", "--kernel-size")
    result = cli.run(*run, "published", "-o", "a")
    assert "| SelfDeblur | 33.07 | 0.875 |" in result.stdout
    assert "Written to a" in result.stdout
    cli.run(*run, 9, "-o", "b", "--noise-sigma", 0.02, "--boundary", "circular", "--steps", 4)
    calls = fake_deblur.calls
    assert [call["kernel_size"] for call in calls] == [17, 9]
    assert [call["noise_sigma"] for call in calls] == [None, 0.02]
    assert [call["boundary"] for call in calls] == ["auto", "circular"]
    assert [call["steps"] for call in calls] == [None, 4]
    assert cli.names(Path("a")) == [
        "contact_sheet.png",
        "images",
        "metrics.csv",
        "settings.json",
        "summary.json",
        "table.md",
    ]


def test_options_that_do_not_fit_the_pictures_are_refused(cli: Any, levin: Path, fake_deblur: Any) -> None:
    run = ("evaluate", "levin", "--protocol", "levin")
    assert "--intensity does not apply to the real pictures" in cli.sentence(*run, "--intensity", 0.5)
    assert "No picture is called 'im3'; there are im1_kernel1." in cli.sentence(*run, "--cases", "im3")
    assert "There are no true kernels" in cli.sentence(*run, "--non-blind")
    assert "--cases chooses real pictures" in cli.sentence("evaluate", "levin", "--cases", "a")
    assert "belongs to --protocol levin" in cli.sentence("evaluate", "levin", "--kernel-size", "published")
    assert "neither a number of pixels" in cli.run("evaluate", "levin", "--kernel-size", "x", status=2).stderr
    assert "levin/blurred/blurred is missing" in cli.sentence("evaluate", "levin/blurred", *run[2:])


def test_photographs_that_cannot_be_read_are_skipped(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "bad.jpg").write_text("broken")
    run = ("evaluate", "photos", "--protocol", "photographs")
    assert "Skipped: photos/bad.jpg is not an image" in cli.sentence(*run)
    write_image(here / "photos" / "good.png", torch.zeros(1, 3, 70, 70))
    result = cli.run(*run, status=4)
    assert "| good.png |" in result.stdout
    assert "Explained: 1 of 1." in result.stdout
