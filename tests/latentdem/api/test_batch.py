from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentdem import UserError
from latentdem.api.batch import FolderReport, Share, restore_folder
from latentdem.io.images import write_image
from latentdem.operators.kernels import delta_kernel
from latentdem.output.result import Result
from latentdem.restoration.image import Progress

Scene = Callable[..., Tensor]


class Restore:
    """Gives images back as they came, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], str]] = []
        self.refused: tuple[int, int] | None = None

    def __call__(self, images: Tensor, boundary: str, progress: Progress, mask: Tensor | None) -> Result:
        if tuple(images.shape[-2:]) == self.refused:
            raise UserError("Too small.")
        self.calls.append((tuple(images.shape), boundary))
        progress("search", 1, 2)
        count = len(images)
        kernel = delta_kernel(5).repeat(count, 1, 1, 1)
        return Result(images.clone(), kernel, images, torch.ones(count), torch.ones(count))


@pytest.fixture
def photos(tmp_path: Path, scene: Scene) -> Path:
    """Three photographs of one size, one of another and one grey."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    for name, height, channels in (("a", 20, 3), ("b", 30, 3), ("c", 20, 3), ("d", 20, 1), ("e", 20, 3)):
        write_image(folder / f"{name}.png", scene(height, 24, channels))
    return folder


def run(photos: Path, restore: Restore, **options: object) -> FolderReport:
    settings = {"boundary": "valid", "figure": False, "batch_size": 2}
    return restore_folder(photos, photos.parent / "out", restore, **{**settings, **options})


def names(photos: Path) -> list[str]:
    return sorted(path.name for path in (photos.parent / "out").glob("*_deblurred.*"))


def test_images_of_one_size_go_together(photos: Path) -> None:
    restore = Restore()
    report = run(photos, restore)
    assert sorted(report.restored) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    shapes = sorted(shape for shape, _ in restore.calls)
    assert shapes == [(1, 1, 20, 24), (1, 3, 20, 24), (1, 3, 30, 24), (2, 3, 20, 24)]
    assert names(photos) == [f"{name}_deblurred.png" for name in "abcde"]
    assert (photos.parent / "out/a_deblurred_kernel.npy").exists()


def test_what_is_there_is_not_done_again(photos: Path) -> None:
    run(photos, Restore())
    (photos.parent / "out/c_deblurred_kernel.npy").unlink()
    restore = Restore()
    report = run(photos, restore)
    assert report.restored == ["c.png"]
    assert len(restore.calls) == 1
    assert sorted(report.found) == ["a.png", "b.png", "d.png", "e.png"]


def test_bad_files_are_passed_over(photos: Path) -> None:
    (photos / "aa.png").write_bytes(b"no image")
    restore = Restore()
    restore.refused = (30, 24)
    report = run(photos, restore)
    assert set(report.failures) == {"aa.png", "b.png"}
    assert report.failures["b.png"].endswith("b.png: Too small.")
    assert len(report.restored) == 4


def test_result_that_is_not_finite_is_a_failure(photos: Path) -> None:
    class Broken(Restore):
        def __call__(self, images: Tensor, boundary: str, progress: Progress, mask: Tensor | None) -> Result:
            result = super().__call__(images, boundary, progress, mask)
            result.image[0] = torch.nan
            return result

    report = run(photos, Broken(), batch_size=3)
    assert "a.png" in report.failures
    assert sorted(report.restored) == ["c.png", "e.png"]


def test_boundary_is_that_of_each_image(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False, False, True, False])
    monkeypatch.setattr("latentdem.api.batch.looks_circular", lambda y: next(answers))
    restore = Restore()
    run(photos, restore, boundary="auto", batch_size=5)
    assert sorted((shape[0], shape[1], where) for shape, where in restore.calls) == [
        (1, 1, "circular"),
        (1, 3, "circular"),
        (1, 3, "valid"),
        (2, 3, "valid"),
    ]


def test_equal_stems_have_their_own_results(photos: Path, scene: Scene) -> None:
    write_image(photos / "a.jpg", scene(20, 24))
    run(photos, Restore())
    assert names(photos)[:2] == ["a_jpg_deblurred.jpg", "a_png_deblurred.png"]


def test_shares_are_everything_once(photos: Path) -> None:
    reports = [run(photos, Restore(), share=Share(i, 2)) for i in range(2)]
    assert [sorted(report.restored) for report in reports] == [["a.png", "c.png", "e.png"], ["b.png", "d.png"]]
    assert not any(report.found for report in reports)
    assert run(photos, Restore(), share=Share(7, 8)).done == 0


def test_share_of_the_environment() -> None:
    assert Share.of({}) == Share(0, 1)
    assert Share.of({"RANK": "1", "WORLD_SIZE": "3"}) == Share(1, 3)
    for wrong in ({"RANK": "3", "WORLD_SIZE": "3"}, {"RANK": "1"}, {"RANK": "x", "WORLD_SIZE": "3"}):
        with pytest.raises(UserError, match="RANK is"):
            Share.of(wrong)


def test_progress_rises_to_the_end(photos: Path) -> None:
    seen: list[float] = []
    run(photos, Restore(), progress=lambda done, total, names: seen.append(done / total))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert 0.2 in seen
