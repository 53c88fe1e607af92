from __future__ import annotations

from pathlib import Path

import pytest

from latentdem.errors import UserError
from latentdem.evaluation.datasets import BENCHMARKS, Picture, find_photographs, natural_key, select


def make(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_levin_pictures_have_truth_kernel_and_published_size(tmp_path: Path) -> None:
    names = (
        "blurred/im1_kernel4_img.png",
        "blurred/im1_kernel10_img.png",
        "blurred/readme.png",
        "sharp/im1.png",
    )
    make(tmp_path, *names, "kernels/kernel4.npy", "kernels/kernel10.npy")
    first, second = BENCHMARKS["levin"].find(tmp_path)
    assert first == Picture(
        0, "im1_kernel4", tmp_path / names[0], tmp_path / names[3], tmp_path / "kernels/kernel4.npy", 27
    )
    assert (second.name, second.published_size) == ("im1_kernel10", None)


def test_koehler_pictures_have_a_common_truth_of_any_format(tmp_path: Path) -> None:
    make(tmp_path, "blurred/Blurry2_10.png", "blurred/Blurry2_9.png", "sharp/GroundTruth2.jpg")
    pictures = BENCHMARKS["koehler"].find(tmp_path)
    assert [picture.name for picture in pictures] == ["Blurry2_9", "Blurry2_10"]
    assert {picture.sharp for picture in pictures} == {tmp_path / "sharp/GroundTruth2.jpg"}
    assert {picture.kernel for picture in pictures} == {None}


def test_lai_pictures_share_truths_and_kernels(tmp_path: Path) -> None:
    make(tmp_path, "blurred/text_01_kernel_03.png", "sharp/text_01.png", "kernels/kernel_03.npy")
    (picture,) = BENCHMARKS["lai"].find(tmp_path)
    assert picture.name == "text_01_kernel_03"
    assert picture.sharp == tmp_path / "sharp/text_01.png"
    assert picture.kernel == tmp_path / "kernels/kernel_03.npy"


def test_kernels_are_optional_as_a_whole(tmp_path: Path) -> None:
    make(tmp_path, "blurred/im1_kernel4_img.png", "sharp/im1.png")
    assert BENCHMARKS["levin"].find(tmp_path)[0].kernel is None


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["im1_kernel1_img.png"], "blurred is missing"),
        (["blurred/im1_kernel1_img.png"], "sharp is missing"),
        (["blurred/other.png", "sharp/im1.png"], "is named as it should be"),
        (
            ["blurred/im2_kernel1_img.png", "sharp/im1.png"],
            r"im2.png, the true image of im2_kernel1_img.png, is",
        ),
        (
            ["blurred/im1_kernel2_img.png", "sharp/im1.png", "kernels/kernel1.npy"],
            r"kernel2.npy, the true kernel of im1_kernel2_img.png, is missing",
        ),
    ],
)
def test_another_layout_is_refused_with_what_is_missing(tmp_path: Path, files: list[str], missing: str) -> None:
    with pytest.raises(UserError, match=missing) as error:
        BENCHMARKS["levin"].find(make(tmp_path, *files))
    assert str(error.value).endswith(
        "the layout of Levin et al. 2009 is blurred/imI_kernelJ_img.png, sharp/imI.png and kernels/kernelJ.npy."
    )


def test_cases_are_patterns_and_the_limit_counts_what_they_match(tmp_path: Path) -> None:
    make(tmp_path, "a1.jpg", "a2.jpg", "b1.png")
    pictures = find_photographs(tmp_path)
    assert [p.name for p in select(pictures, ["a*", "b1.png"], None)] == ["a1.jpg", "a2.jpg", "b1.png"]
    assert [(p.index, p.name) for p in select(pictures, ["*1*"], None)] == [(0, "a1.jpg"), (2, "b1.png")]
    assert [p.name for p in select(pictures, [], 1)] == ["a1.jpg"]
    with pytest.raises(UserError, match=r"No picture is called 'c\*'; there are a1.jpg, a2.jpg, b1.png\."):
        select(pictures, ["a*", "c*"], None)


def test_numbers_in_names_are_sorted_by_value() -> None:
    assert sorted(["x10_2", "x9_10", "x9_9"], key=natural_key) == ["x9_9", "x9_10", "x10_2"]


def test_every_published_figure_has_a_source() -> None:
    for benchmark in BENCHMARKS.values():
        for figure in benchmark.published:
            assert figure.source
            assert figure.psnr is not None or figure.mnc is not None
