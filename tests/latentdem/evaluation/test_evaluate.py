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
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.evaluation import EvaluationSettings, run_evaluation
from latentdem.evaluation import loop as module
from latentdem.evaluation.cases import make_case
from latentdem.evaluation.store import COLUMNS
from latentdem.io.images import read_image, write_image
from latentdem.io.kernels import read_kernel
from latentdem.metrics import psnr
from latentdem.operators.simulate import blur_and_add_noise
from latentdem.output.sheets import SheetRow

Scene = Callable[..., Tensor]
Sheets = list[tuple[list[SheetRow], Path]]
SETTINGS = EvaluationSettings(kernel_size=9, noise_sigma=0.02)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Sheets:
    """Contact sheets that were to be drawn, instead of drawing them, which takes a second."""
    drawn: Sheets = []
    monkeypatch.setattr(module, "contact_sheet", lambda rows, path: drawn.append((rows, path)))
    return drawn


@pytest.fixture
def folder(tmp_path: Path, scene: Scene) -> Path:
    """Three good images of which two share a stem, a broken one, a small one, and something else."""
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photos / "a.bmp", scene(seed=1))
    write_image(photos / "a.png", scene(seed=2))
    write_image(photos / "d.png", scene(channels=1, seed=3))
    (photos / "b.png").write_text("broken")
    Image.new("L", (8, 8)).save(photos / "c.png")
    (photos / "notes.txt").write_text("no image")
    return photos


def table(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_files_and_failures(folder: Path, tmp_path: Path, fake_deblur: Any) -> None:
    out = tmp_path / "out"
    seen: list[tuple[float, int, str]] = []
    result = run_evaluation(folder, out, SETTINGS, progress=lambda *args: seen.append(args))

    assert [row.image for row in result.rows] == ["a.bmp", "a.png", "d.png"]
    assert list(result.failures) == ["b.png", "c.png"]
    assert "not an image" in result.failures["b.png"]
    rows = table(out)
    assert tuple(rows[0]) == COLUMNS
    assert [row["index"] for row in rows] == ["0", "1", "4"]
    for row, record in zip(result.rows, rows, strict=True):
        # The stand-in returns its input and a delta.
        assert row.psnr == row.psnr_input
        assert 0 < (row.mnc or 0) < 1
        assert row.kernel_mse is not None
        assert row.lpips is None
        assert record["lpips"] == ""
        assert float(record["psnr"]) == pytest.approx(row.psnr, abs=1e-3)
    assert sorted(p.name for p in (out / "images").iterdir()) == sorted(
        f"{index}_{stem}_{what}"
        for index, stem in (("000", "a"), ("001", "a"), ("004", "d"))
        for what in ("restored.png", "kernel.npy", "kernel.png", "accuracy.csv")
    )
    assert Image.open(out / "contact_sheet.png").height > 300

    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 3
    assert set(summary["failures"]) == {"b.png", "c.png"}
    mean = np.mean([row.psnr for row in result.rows])
    assert summary["mean"]["psnr"] == pytest.approx(mean)
    assert summary["mean"]["lpips"] is None
    assert result.mean["psnr"] == pytest.approx(mean)
    gains = [row.psnr_aligned - row.psnr_input for row in result.rows]
    assert summary["gain_aligned"]["over_input"] == {
        "mean": pytest.approx(np.mean(gains)),
        "worst": pytest.approx(min(gains)),
    }
    assert summary["gain_aligned"]["over_aligned_input"]["mean"] == 0  # the stand-in changes nothing

    assert [args[0] for args in seen] == sorted(args[0] for args in seen)
    assert seen[-1][0] == seen[-1][1] == 5


def test_settings_reach_the_method(folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets) -> None:
    run_evaluation(folder, tmp_path / "1", SETTINGS, limit=1)
    known = replace(SETTINGS, non_blind=True, estimate_noise=True, boundary="valid", seed=7, steps=5)
    result = run_evaluation(folder, tmp_path / "2", known, limit=1)
    blind, non_blind = fake_deblur.calls
    assert blind["kernel"] is None
    assert (blind["kernel_size"], blind["noise_sigma"], blind["boundary"]) == (9, 0.02, "circular")
    assert non_blind["kernel"].shape == (1, 1, 9, 9)
    assert (non_blind["noise_sigma"], non_blind["boundary"], non_blind["seed"], non_blind["steps"]) == (
        None,
        "valid",
        7,
        5,
    )
    assert non_blind["image"].shape == (1, 3, 32, 40)
    assert result.rows[0].mnc is None
    assert result.rows[0].kernel_mse is None


def test_cases_are_seeded_by_the_index(folder: Path) -> None:
    first = make_case(folder / "a.png", 1, SETTINGS)
    again = make_case(folder / "a.png", 1, SETTINGS)
    shifted = make_case(folder / "a.png", 0, replace(SETTINGS, seed=1))
    other = make_case(folder / "a.png", 2, SETTINGS)
    assert torch.equal(first.blurred, again.blurred)
    assert torch.equal(first.blurred, shifted.blurred)
    assert not torch.equal(first.kernel, other.kernel)
    assert (first.blurred - first.reference).abs().max() > 0.05


def test_images_are_cropped_square_and_reduced(folder: Path) -> None:
    case = make_case(folder / "a.png", 0, replace(SETTINGS, size=20))
    assert case.reference.shape == (1, 3, 20, 20)
    square = make_case(folder / "a.png", 0, replace(SETTINGS, size=40))
    assert torch.equal(square.reference, read_image(folder / "a.png").pixels[..., 4:44])
    with pytest.raises(UserError, match="48 x 40 pixels, too small for --size 41"):
        make_case(folder / "a.png", 0, replace(SETTINGS, size=41))


@pytest.mark.parametrize("size", [8, 9])
def test_valid_blur_is_direct_convolution_without_wrapping(scene: Scene, size: int) -> None:
    sharp = scene(24, 26)
    kernel = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    kernel = kernel / kernel.sum()
    y, reference = blur_and_add_noise(sharp, kernel, 0.0, np.random.default_rng(0), "valid")
    expected = torch.nn.functional.conv2d(sharp.transpose(0, 1), kernel.flip((-2, -1))).transpose(0, 1)
    assert torch.allclose(y, expected, atol=1e-5)
    # The reference is aligned: a delta at the origin leaves exactly it.
    delta = torch.zeros(1, 1, size, size)
    delta[..., size // 2, size // 2] = 1
    same, reference = blur_and_add_noise(sharp, delta, 0.0, np.random.default_rng(0), "valid")
    assert reference.shape == (1, 3, 24 - size + 1, 26 - size + 1)
    assert torch.allclose(same, reference, atol=1e-5)


def test_noise_has_the_stated_deviation(scene: Scene) -> None:
    sharp = scene(128, 128)
    delta = torch.zeros(1, 1, 3, 3)
    delta[..., 1, 1] = 1
    y, _ = blur_and_add_noise(sharp, delta, 0.1, np.random.default_rng(0))
    assert float((y - sharp).std()) == pytest.approx(0.1, rel=0.02)


def test_valid_blur_needs_enough_pixels(scene: Scene) -> None:
    kernel = torch.full((1, 1, 21, 21), 1 / 441)
    with pytest.raises(UserError, match="leaves less than 16 x 16"):
        blur_and_add_noise(scene(30, 30), kernel, 0.0, np.random.default_rng(0), "valid")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_resumes_after_an_interruption(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets, error: BaseException
) -> None:
    out = tmp_path / "out"
    fake_deblur.fail_at, fake_deblur.error = 2, error
    with pytest.raises(type(error)):
        run_evaluation(folder, out, SETTINGS)
    assert [row["image"] for row in table(out)] == ["a.bmp", "a.png"]
    assert not list(out.rglob(".latentdem-*"))

    fake_deblur.fail_at = None
    result = run_evaluation(folder, out, SETTINGS)
    assert len(fake_deblur.calls) == 3
    assert [row.image for row in result.rows] == ["a.bmp", "a.png", "d.png"]
    assert [row["image"] for row in table(out)] == ["a.bmp", "a.png", "d.png"]
    again = run_evaluation(folder, out, SETTINGS)
    assert [r.psnr for r in again.rows] == pytest.approx([r.psnr for r in result.rows], abs=1e-3)
    assert len(fake_deblur.calls) == 3


def test_a_limit_can_be_raised_and_lowered(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets
) -> None:
    out = tmp_path / "out"
    assert len(run_evaluation(folder, out, SETTINGS, limit=1).rows) == 1
    assert len(run_evaluation(folder, out, SETTINGS).rows) == 3
    assert len(fake_deblur.calls) == 3
    assert len(run_evaluation(folder, out, SETTINGS, limit=1).rows) == 1
    assert len(table(out)) == 3


def test_results_that_do_not_match_are_computed_again(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets
) -> None:
    out = tmp_path / "out"
    run_evaluation(folder, out, SETTINGS)
    (out / "images" / "001_a_restored.png").unlink()
    (folder / "d.png").rename(folder / "e.png")  # the same index, another image
    run_evaluation(folder, out, SETTINGS)
    assert len(fake_deblur.calls) == 5
    assert [row["image"] for row in table(out)] == ["a.bmp", "a.png", "e.png"]


def test_other_settings_are_refused(folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets) -> None:
    out = tmp_path / "out"
    run_evaluation(folder, out, SETTINGS, limit=1)
    with pytest.raises(UserError, match="kernel_size 9 instead of 11, seed 0 instead of 5"):
        run_evaluation(folder, out, replace(SETTINGS, kernel_size=11, seed=5))
    (out / "settings.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        run_evaluation(folder, out, SETTINGS)


@pytest.mark.parametrize("text", ["nonsense", "index,image\n1,a.png\n"])
def test_damaged_table_is_refused(
    folder: Path, tmp_path: Path, fake_deblur: Any, text: str, sheets: Sheets
) -> None:
    out = tmp_path / "out"
    run_evaluation(folder, out, SETTINGS, limit=1)
    (out / "metrics.csv").write_text(text + "\n1,2\n")
    with pytest.raises(UserError, match="not a table of this program"):
        run_evaluation(folder, out, SETTINGS)


def test_a_result_that_is_not_finite_is_a_failure(
    folder: Path, tmp_path: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import latentdem

    def diverging(image: Tensor, kernel_size: int, **options: Any) -> Any:
        result = fake_deblur(image, kernel_size, **options)
        result.tensor = result.tensor * torch.nan
        return result

    monkeypatch.setattr(latentdem, "deblur", diverging)
    result = run_evaluation(folder, tmp_path / "out", SETTINGS, limit=1)
    assert not result.rows
    assert "not finite" in result.failures["a.bmp"]


def test_wrong_arguments_are_refused_at_once(folder: Path, tmp_path: Path, fake_deblur: Any) -> None:
    with pytest.raises(UserError, match="not a folder"):
        run_evaluation(tmp_path / "missing", tmp_path / "out", SETTINGS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        run_evaluation(tmp_path / "empty", tmp_path / "out", SETTINGS)
    with pytest.raises(UserError, match="cannot go into"):
        run_evaluation(folder, folder, SETTINGS)
    fake_deblur.fail_at, fake_deblur.error = 0, UserError("unknown prior")
    with pytest.raises(UserError, match="unknown prior"):
        run_evaluation(folder, tmp_path / "out", SETTINGS)


def test_long_evaluations_have_several_sheets(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_SHEET", 2)
    result = run_evaluation(folder, tmp_path / "out", SETTINGS)
    assert [path.name for _, path in sheets] == ["contact_sheet.png", "contact_sheet_2.png"]
    rows = [row for page, _ in sheets for row in page]
    assert [row.name for row in rows] == ["a.bmp", "a.png", "d.png"]
    for row, figures in zip(rows, result.rows, strict=True):
        assert row.blurred_caption == f"{figures.psnr_input:.2f} dB"
        assert row.kernel_caption == f"MNC {figures.mnc:.3f}"
        # The stand-in returns its input; the file on disk is clipped and rounded to 8 bits.
        assert (row.image - row.blurred.clamp(-1, 1)).abs().max() < 1 / 255
        assert row.kernel[0, 0, 4, 4] == 1
        assert row.true_kernel[0, 0, 4, 4] < 1


def test_stored_kernels_equal_the_estimates(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets
) -> None:
    run_evaluation(folder, tmp_path / "out", SETTINGS, limit=1)
    kernel = read_kernel(tmp_path / "out" / "images" / "000_a_kernel.npy")
    assert kernel[0, 0, 4, 4] == 1


def test_margin_is_left_out_of_the_metrics(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets
) -> None:
    settings = replace(SETTINGS, margin=7)
    row = run_evaluation(folder, tmp_path / "out", settings, limit=1).rows[0]
    case = make_case(folder / "a.bmp", 0, settings)
    inner = (..., slice(7, -7), slice(7, -7))
    assert row.psnr == pytest.approx(psnr(case.blurred[inner], case.reference[inner]))


def test_margin_without_pixels_left_is_a_failure(folder: Path, tmp_path: Path, fake_deblur: Any) -> None:
    result = run_evaluation(folder, tmp_path / "out", replace(SETTINGS, margin=13), limit=1)
    assert "use a smaller one" in result.failures["a.bmp"]


def test_images_of_one_size_are_restored_together(
    folder: Path, tmp_path: Path, fake_deblur: Any, sheets: Sheets, scene: Scene
) -> None:
    write_image(folder / "e.png", scene(40, 44, seed=5))
    singly, together = run_evaluation(folder, tmp_path / "one", SETTINGS), len(fake_deblur.calls)
    seen: list[tuple[float, int, str]] = []
    batched = run_evaluation(
        folder, tmp_path / "two", SETTINGS, batch=4, progress=lambda *args: seen.append(args)
    )
    shapes = [call["image"].shape[:2] for call in fake_deblur.calls[together:]]
    assert shapes == [(2, 3), (1, 1), (1, 3)]  # the grey one and the one of another size go alone
    for row, other in zip(batched.rows, singly.rows, strict=True):
        assert replace(row, seconds=0) == replace(other, seconds=0)
    # Two files that cannot be used came before they were restored.
    assert pytest.approx((8 / 3, 10 / 3, 4)) == [done for done, _, name in seen if name == "a.bmp, a.png"]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][:2] == (6, 6)
