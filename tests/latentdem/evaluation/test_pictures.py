from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.errors import UserError
from latentdem.evaluation import picture_tables
from latentdem.evaluation.picture_rows import PictureRow, PictureSummary
from latentdem.evaluation.pictures import PictureSettings, PictureTask, evaluate_pictures
from latentdem.io.images import write_image
from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import motion_kernel
from latentdem.output.result import Result
from latentdem.output.sheets import SheetRow
from latentdem.restoration.settings import Settings

Scene = Callable[..., Tensor]
Sheets = list[list[SheetRow]]
SETTINGS = PictureSettings("levin", Settings(kernel_size=9))


class Sharpening:
    """A method that returns the true image of its input, or its input where `works` is false."""

    def __init__(self, truths: dict[int, Tensor], works: bool = True) -> None:
        self.truths, self.works = truths, works
        self.tasks: list[PictureTask] = []
        self.fail_at: int | None = None

    def __str__(self) -> str:
        return "Sharpening"

    def __call__(self, task: PictureTask) -> Result:
        if len(self.tasks) == self.fail_at:
            raise KeyboardInterrupt
        self.tasks.append(task)
        task.progress("stage", 1, 2)
        size = task.settings.kernel_size
        kernel = torch.full((1, 1, size, size), 1 / size**2) if task.kernel is None else task.kernel
        image = self.truths[task.blurred.shape[1]] if self.works else task.blurred - 0.2
        sigma = torch.tensor([0.01])
        residual = 5 * sigma if self.works else sigma
        return Result(image, kernel, task.blurred, sigma, residual, seconds={"total": 2.0})


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Sheets:
    """Contact sheets that were to be drawn, instead of drawing them."""
    drawn: Sheets = []
    monkeypatch.setattr(picture_tables, "contact_sheet", lambda rows, path, cell=1.9: drawn.append(rows))
    return drawn


@pytest.fixture
def levin(tmp_path: Path, scene: Scene) -> tuple[Path, Sharpening, Tensor]:
    """A folder of three blurred pictures, a method and the kernel of the first."""
    folder = tmp_path / "levin"
    for part in ("blurred", "sharp", "kernels"):
        (folder / part).mkdir(parents=True)
    sharp = scene(56, 60, channels=1)
    write_image(folder / "sharp" / "im1.png", sharp)
    kernels = [motion_kernel(9, 0.5, np.random.default_rng(seed)) for seed in range(3)]
    for number, kernel in enumerate(kernels, start=1):
        np.save(folder / "kernels" / f"kernel{number}.npy", kernel[0, 0].numpy())
        write_image(folder / "blurred" / f"im1_kernel{number}_img.png", ext.blur(sharp, kernel))
    return folder, Sharpening({1: sharp}), kernels[0]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_levin_is_scored_and_put_beside_published_figures(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, sheets: Sheets
) -> None:
    folder, method, true_kernel = levin
    out = tmp_path / "out"
    evaluation = evaluate_pictures(folder, out, SETTINGS, method=method)
    assert [row.image for row in evaluation.rows] == ["im1_kernel1", "im1_kernel2", "im1_kernel3"]
    row = evaluation.rows[0]
    assert row.psnr is not None
    assert row.psnr > 45
    assert row.psnr_input is not None
    assert row.psnr_input < 35
    assert row.gain == pytest.approx(row.psnr - row.psnr_input)
    flat = torch.full((1, 1, 9, 9), 1 / 81)
    assert row.mnc == pytest.approx(kernel_metrics(flat, true_kernel).mnc)
    assert row.mnc_rotated == pytest.approx(row.mnc, abs=0.2)
    assert not row.explained
    assert row.seconds == 2
    assert row.cpu_seconds >= 0
    assert table(out)[0]["explained"] == "False"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["better"] == 1
    assert summary["worse"] == 0
    assert summary["confusion"]["unexplained"] == {"worse": 0, "not worse": 3}
    text = (out / "table.md").read_text()
    assert "| Restormer | 27.78 | - | Zamir et al., CVPR 2022" in text
    assert "this run, blind, 3 of 32 pictures" in text
    (sheet,) = sheets
    assert [row.name for row in sheet] == ["im1_kernel1", "im1_kernel2", "im1_kernel3"]


def test_results_that_are_worse_but_explained_are_counted(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, sheets: Sheets
) -> None:
    folder, method, _ = levin
    method.works = False
    evaluation = evaluate_pictures(folder, tmp_path / "out", SETTINGS, method=method, limit=2)
    summary = PictureSummary.of(evaluation.rows)
    assert summary.confusion == {
        "explained": {"worse": 2, "not worse": 0},
        "unexplained": {"worse": 0, "not worse": 0},
    }
    assert (summary.better, summary.worse, summary.explained) == (0, 1, 2)


def test_method_gets_kernel_sizes_and_true_kernels_only_when_asked(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, sheets: Sheets
) -> None:
    folder, method, true_kernel = levin
    published = replace(SETTINGS, published_sizes=True)
    evaluate_pictures(folder, tmp_path / "a", published, method=method)
    assert [task.settings.kernel_size for task in method.tasks] == [17, 15, 13]
    assert method.tasks[0].kernel is None
    told = replace(SETTINGS, non_blind=True)
    row = evaluate_pictures(folder, tmp_path / "b", told, method=method, limit=1).rows[0]
    kernel = method.tasks[-1].kernel
    assert kernel is not None
    torch.testing.assert_close(kernel, true_kernel)
    assert row.mnc is None


def test_interrupted_run_resumes_and_cases_can_be_added(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, sheets: Sheets
) -> None:
    folder, method, _ = levin
    out = tmp_path / "out"
    method.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        evaluate_pictures(folder, out, SETTINGS, method=method)
    method.fail_at = None
    assert len(table(out)) == 1
    first = evaluate_pictures(folder, out, SETTINGS, method=method, cases=["*kernel3"])
    assert [row.image for row in first.rows] == ["im1_kernel3"]
    seen: list[tuple[float, int, str]] = []
    everything = evaluate_pictures(
        folder, out, SETTINGS, method=method, progress=lambda *arguments: seen.append(arguments)
    )
    assert [row.index for row in everything.rows] == [0, 1, 2]
    assert len(method.tasks) == 3
    assert (1.5, 3, "im1_kernel2") not in seen
    assert (2.5, 3, "im1_kernel2") in seen
    again = evaluate_pictures(folder, out, SETTINGS, method=method)
    assert [row.explained for row in again.rows] == [False] * 3
    with pytest.raises(UserError, match="seed 0 instead of 1"):
        evaluate_pictures(folder, out, replace(SETTINGS, restoration=Settings(9, seed=1)), method=method)


def test_koehler_is_scored_in_colour_without_kernels(tmp_path: Path, scene: Scene, sheets: Sheets) -> None:
    folder = tmp_path / "koehler"
    sharp = scene(96, 100)
    (folder / "blurred").mkdir(parents=True)
    (folder / "sharp").mkdir()
    write_image(folder / "sharp" / "GroundTruth1.png", sharp)
    write_image(folder / "blurred" / "Blurry1_1.png", sharp.roll(12, -1))
    settings = PictureSettings("koehler", Settings(9))
    row = evaluate_pictures(folder, tmp_path / "out", settings, method=Sharpening({3: sharp})).rows[0]
    assert row.psnr_input is not None
    assert row.psnr_input > 45
    assert row.mnc is None
    with pytest.raises(UserError, match="no true kernels for the protocol koehler"):
        evaluate_pictures(folder, tmp_path / "b", replace(settings, non_blind=True))
    with pytest.raises(UserError, match="No kernel sizes are published"):
        evaluate_pictures(folder, tmp_path / "b", replace(settings, published_sizes=True))


def test_photographs_are_listed_without_scores_and_bad_files_skipped(
    tmp_path: Path, scene: Scene, sheets: Sheets
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", scene(seed=i))
    write_image(folder / "small.png", scene(16, 16))
    (folder / "bad.jpg").write_text("broken")
    settings = PictureSettings("photographs", Settings(17))
    out = tmp_path / "out"
    evaluation = evaluate_pictures(folder, out, settings, method=Sharpening({3: scene()}))
    assert [row.image for row in evaluation.rows] == ["0.png", "1.png"]
    assert evaluation.rows[0].psnr is None
    assert "not an image" in evaluation.failures["bad.jpg"]
    assert "kernel size 17 is larger than the image" in evaluation.failures["small.png"]
    text = (out / "table.md").read_text()
    assert "| picture | noise | residual | seconds | CPU-s | explained |" in text
    assert "Explained: 0 of 2." in text
    assert "Skipped: bad.jpg: " in text
    (sheet,) = sheets
    assert sheet[0].reference is None
    assert sheet[0].image_caption == "not explained, residual 0.0500, noise 0.0100"


def test_sizes_that_differ_are_a_reason_to_skip(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, scene: Scene, sheets: Sheets
) -> None:
    folder, method, _ = levin
    write_image(folder / "blurred" / "im1_kernel2_img.png", scene(58, 60, channels=1))
    evaluation = evaluate_pictures(folder, tmp_path / "out", SETTINGS, method=method)
    assert list(evaluation.failures) == ["im1_kernel2"]
    assert "is 60 x 58 pixels and its true image" in evaluation.failures["im1_kernel2"]


def test_contact_sheets_are_written_with_and_without_truth(tmp_path: Path, scene: Scene) -> None:
    from latentdem.output.sheets import contact_sheet

    kernel = torch.ones(1, 1, 9, 9)
    contact_sheet([SheetRow("a", scene(), scene(), None, kernel, None)], tmp_path / "a.png", 4.0)
    contact_sheet([SheetRow("a", scene(), scene(), scene(), kernel, None)], tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert (tmp_path / "b.png").exists()


def test_unknown_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are levin, koehler, lai, photographs"):
        evaluate_pictures(tmp_path, tmp_path / "out", PictureSettings("gopro"))


def test_summary_names_the_worst_picture() -> None:
    def row(name: str, gain: float, explained: bool) -> PictureRow:
        return PictureRow(
            0, name, 9, 0.01, 0.01, explained, 1.0, 2.0, psnr_input=20.0, psnr=20 + gain, gain=gain
        )

    summary = PictureSummary.of([row("a", 4, True), row("b", -1, False), row("c", 2, True), row("d", 3, False)])
    assert summary.worst_gain == ("b", -1)
    assert summary.mean["gain"] == 2
    assert (summary.better, summary.worse) == (0.5, 0.25)
    assert summary.sentences()[2] == (
        "Explained: 2 not worse than the input, 0 worse. Not explained: 1 not worse, 1 worse."
    )


def test_default_method_is_deblur_with_its_defaults(
    levin: tuple[Path, Sharpening, Tensor], tmp_path: Path, fake_deblur: Any, sheets: Sheets
) -> None:
    from latentdem.restoration.settings import Settings as Defaults

    evaluate_pictures(levin[0], tmp_path / "out", SETTINGS, limit=1)
    (call,) = fake_deblur.calls
    assert call["kernel"] is None
    assert {name: call[name] for name in vars(Defaults())} == vars(Defaults(kernel_size=9))
