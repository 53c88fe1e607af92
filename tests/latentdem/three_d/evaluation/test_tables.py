"""Means of the methods, and the table of objects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from latentdem.three_d.evaluation.store import ViewRow
from latentdem.three_d.evaluation.tables import figures, means_table, objects_table

ROW = ViewRow(
    object=0,
    name="chair",
    method="two",
    psnr=20.0,
    ssim=0.5,
    pose_error=10.0,
    pose_error_3=None,
    nearest_error=10.0,
    nearest_error_3=None,
    confidence=0.9,
    confidence_3=None,
    height_error=2.0,
    chamfer=None,
    iou=0.0,
    seconds=3.0,
    mesh_seconds=None,
)


def test_figures_of_a_method():
    turned = {"pose_error": 40.0, "nearest_error": 40.0, "confidence": 0.6}
    rows = [ROW, replace(ROW, object=1, psnr=22.0, chamfer=0.1, iou=0.5, **turned)]
    one = [replace(ROW, method="one", psnr=19.0)]
    assert figures(rows, one) == {
        "objects": 2,
        "psnr": 21.0,
        "gain": 1.0,  # over the object that both have
        "ssim": 0.5,
        "pose_median": 25.0,
        "pose_share": 0.5,
        "nearest_share": 0.5,
        "confidence": 0.75,
        "sure_share": 1.0,  # of the pose whose confidence is 0.9
        "height_error": 2.0,
        "chamfer": 0.1,
        "iou": 0.25,
        "seconds": 3.0,
        "mesh_seconds": None,
        "memory_mb": None,
    }
    assert figures(one, rows)["gain"] == -1


def test_every_object_has_its_row_and_missing_figures_are_dashes():
    two = [
        ROW,
        replace(ROW, object=1, name="mug", pose_error=40.0, nearest_error=40.0, confidence=0.6, iou=None),
    ]
    one = [replace(ROW, object=1, name="mug", method="one", pose_error=None, confidence=None, iou=0.25)]
    results = {"one": figures(one, one), "two": figures(two, one)}
    head, _, *rows = objects_table({"one": one, "two": two}, results)[:5]
    assert head == (
        "| object | one view (Zero123): PSNR / SSIM / IoU | two views, poses estimated: PSNR / SSIM / IoU "
        "| pose error (confidence) |"
    )
    assert rows == [
        "| chair | - | 20.00 / 0.500 / 0.000 | 10.0 (0.90) |",
        "| mug | 20.00 / 0.500 / 0.250 | 20.00 / 0.500 / - | 40.0 (0.60) |",
        "| mean | 20.00 / 0.500 / 0.250 | 20.00 / 0.500 / 0.000 | median 25.0 (0.75), 50% under 15 |",
    ]


def test_three_views_have_two_poses_and_other_programs_none():
    three = [replace(ROW, method="three", pose_error_3=4.0, nearest_error_3=4.0, confidence_3=1.0)]
    theirs = [replace(ROW, method="theirs", pose_error=None, confidence=None)]
    results = {"three": figures(three, []), "theirs": figures(theirs, [])}
    row = objects_table({"three": three, "theirs": theirs}, results)[2]
    assert row == "| chair | 20.00 / 0.500 / 0.000 | 10.0 (0.90), 4.0 (1.00) | 20.00 / 0.500 / 0.000 |"
    assert results["three"]["pose_median"] == pytest.approx(7.0)
    assert "Meshes of other programs" in means_table(results)[-1]


def test_a_pose_from_which_the_object_looks_the_same_counts_as_right():
    turned = [replace(ROW, pose_error=178.0, nearest_error=2.0)]
    result = figures(turned, [])
    assert (result["pose_share"], result["nearest_share"], result["sure_share"]) == (0, 1, 1)
    assert objects_table({"two": turned}, {"two": result})[2].endswith("| 178.0 / 2.0 (0.90) |")
