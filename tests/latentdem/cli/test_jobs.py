"""Which photographs a command restores, and the names of their results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from latentdem import UserError
from latentdem.cli._jobs import expand, plan, suffix_of
from latentdem.cli._share import Share
from latentdem.io.images import write_image

Scene = Callable[..., Tensor]


@pytest.fixture
def make(here: Path, scene: Scene) -> Callable[..., None]:
    """Writes pictures into the current folder."""

    def write(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(exist_ok=True, parents=True)
            write_image(name, scene(16, 16))

    return write


def planned(*paths: str, out: str | None = None, suffix: str | None = None) -> dict[str, str]:
    jobs = plan(expand([Path(path) for path in paths]), out, "_sharp", suffix)
    return {job.name: str(job.target) for job in jobs}


def test_results_lie_beside_their_photographs(make: Callable[..., None]) -> None:
    make("a.png", "x/b.jpg")
    assert planned("a.png") == {"a.png": "a_sharp.png"}
    assert planned("a.png", "x/b.jpg") == {"a.png": "a_sharp.png", "x/b.jpg": "x/b_sharp.jpg"}
    assert planned("a.png", out="o.webp") == {"a.png": "o.webp"}
    assert planned("a.png", suffix=".tif") == {"a.png": "a_sharp.tif"}


def test_results_of_a_folder_lie_in_one_beside_it(
    make: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("p/a.png", "p/b.png")
    expected = {"p/a.png": "p_sharp/a_sharp.png", "p/b.png": "p_sharp/b_sharp.png"}
    assert planned("p") == planned("p/") == expected
    assert planned("p", out="o") == {"p/a.png": "o/a_sharp.png", "p/b.png": "o/b_sharp.png"}
    monkeypatch.chdir("p")
    assert planned(".")["a.png"] == str(Path("../p_sharp/a_sharp.png").resolve())


def test_patterns_and_repeated_names(make: Callable[..., None]) -> None:
    make("p/a.png", "p/b.png", "q[1].png")
    assert list(planned("p/*.png", "p/a.png", "q[1].png")) == ["p/a.png", "p/b.png", "q[1].png"]
    assert expand([Path("**/b.png")]) == [Path("p/b.png")]
    with pytest.raises(UserError, match="No file matches"):
        expand([Path("*.tif")])
    with pytest.raises(UserError, match=r"c.png does not exist"):
        expand([Path("p/a.png"), Path("c.png")])


def test_every_photograph_has_a_result_of_its_own(make: Callable[..., None]) -> None:
    make("p/a.png", "p/a.jpg", "p/a_png.png", "p/a.png_sharp.png")
    kept = planned("p", out="o")
    assert kept["p/a.png"] == "o/a_sharp.png"
    assert kept["p/a.jpg"] == "o/a_sharp.jpg"
    assert len(set(kept.values())) == 4
    converted = planned("p", out="o", suffix=".png")
    assert converted["p/a.png"] == "o/a.png_sharp.png"
    assert converted["p/a.jpg"] == "o/a.jpg_sharp.png"
    assert converted["p/a_png.png"] == "o/a_png_sharp.png"
    assert len(set(converted.values())) == 4
    keys = [job.key for job in plan([Path("p")], "o", "_sharp", None)]
    assert keys == ["a_sharp.jpg", "a_sharp.png", "a.png_sharp_sharp", "a_png_sharp"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that ignore case")
def test_names_that_differ_in_case_only(make: Callable[..., None]) -> None:
    make("p/a.png", "p/a.PNG")
    assert sorted(planned("p", out="o").values()) == ["o/a_sharp.PNG", "o/a_sharp.png"]
    assert [job.key for job in plan([Path("p")], "o", "_sharp", None)] == ["a_sharp.PNG", "a_sharp.png"]


def test_two_photographs_with_one_result_are_refused(make: Callable[..., None]) -> None:
    make("p/a.png", "q/a.png")
    with pytest.raises(UserError, match=r"p/a.png and q/a.png would both be restored to o/a.png_sharp.png"):
        planned("p", "q", out="o")
    assert len(planned("p", "q")) == 2


def test_results_of_an_earlier_run_are_no_photographs(
    make: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    make("a.png", "a_sharp.png", "b_sharp.png")
    assert list(planned("*.png")) == ["a.png", "b_sharp.png"]
    assert "Left out a_sharp.png, the result of a.png." in caplog.text
    assert list(planned("a_sharp.png")) == ["a_sharp.png"]


def test_results_beside_their_photographs_are_left_out_of_a_folder(
    make: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Who tries one photograph first and then its folder has one there."""
    make("photos/a.jpg", "photos/a_sharp.jpg", "photos/b_sharp.jpg")
    assert list(planned("photos")) == ["photos/a.jpg", "photos/b_sharp.jpg"]
    assert "Left out photos/a_sharp.jpg, the result of photos/a.jpg." in caplog.text


def test_folder_of_the_results_is_none_for_one_file(make: Callable[..., None]) -> None:
    make("a.png", "b.png", "p/a.png")
    for paths in (["a.png", "b.png"], ["p"]):
        with pytest.raises(UserError, match="names one file"):
            planned(*paths, out="o.png")
    with pytest.raises(UserError, match="takes a single photograph"):
        planned("a.png", "b.png", out="-")
    with pytest.raises(UserError, match="does not name an image format"):
        planned("a.png", out="o.gif")


def test_name_without_a_suffix_is_neither_a_file_nor_a_new_folder(make: Callable[..., None]) -> None:
    make("a.png")
    with pytest.raises(UserError, match="There is no folder sharp; add a / to make it"):
        planned("a.png", out="sharp")
    Path("sharp").mkdir()
    assert planned("a.png", out="sharp") == {"a.png": str(Path("sharp", "a_sharp.png"))}


def test_suffix_is_that_of_the_contents(make: Callable[..., None]) -> None:
    make("a.png", "b.JPEG")
    assert suffix_of(Path("b.JPEG")) == ".JPEG"
    Path("a.png").rename("a.jpg")
    Path("b.JPEG").rename("b")
    assert suffix_of(Path("a.jpg")) == ".png"
    assert suffix_of(Path("b")) == ".jpg"
    Path("c.tif").touch()
    assert suffix_of(Path("c.tif")) == ".tif"


def test_shares_are_everything_once(make: Callable[..., None]) -> None:
    make(*(f"p/{i}.png" for i in range(5)))
    jobs = plan([Path("p")], "o", "_sharp", None)
    assert [len(Share(i, 2).pick(jobs)) for i in range(2)] == [3, 2]
    assert {job.name for i in range(2) for job in Share(i, 2).pick(jobs)} == {job.name for job in jobs}
    assert Share(7, 8).pick(jobs) == []
    assert [Share(i, 2).own(Path("a/r.json")).name for i in range(2)] == ["r_0.json", "r_1.json"]
    assert Share().own(Path("r.json")) == Path("r.json")


def test_share_of_the_environment() -> None:
    assert Share.of({}) == Share.of({"WORLD_SIZE": "1"}) == Share(0, 1)
    assert Share.of({"RANK": "1", "WORLD_SIZE": "3"}) == Share(1, 3)
    wrong = ({"RANK": "3", "WORLD_SIZE": "3"}, {"RANK": "1"}, {"RANK": "x", "WORLD_SIZE": "3"})
    for environment in (*wrong, {"WORLD_SIZE": "4"}):
        with pytest.raises(UserError, match="set both as torchrun does"):
            Share.of(environment)
