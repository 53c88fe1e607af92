"""Looks of an object: what is left out of its pictures, and the table of errors."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("embreex")

import trimesh

from latentdem.three_d.evaluation.cases import known_cameras
from latentdem.three_d.objects.files import read_object
from latentdem.three_d.synthetic.render import render


@pytest.fixture
def folder(tmp_path):
    """A box whose corners have different colours."""
    box = trimesh.creation.box((1, 2, 1))
    colours = np.random.default_rng(0).integers(60, 200, (8, 3))
    box.visual.vertex_colors = np.concatenate([colours, np.full((8, 1), 255)], 1).astype(np.uint8)
    box.export(tmp_path / "box.ply")
    return tmp_path


def test_a_look_leaves_out_light_or_texture(compare_looks, folder):
    cameras = known_cameras(0, 0)
    looks = compare_looks.in_looks(read_object(folder / "box.ply"), cameras)
    assert tuple(looks) == compare_looks.LOOKS
    pictures = {name: render(shown, cameras) for name, shown in looks.items()}
    seen = pictures["as it is"][..., 3] == 255
    for picture in pictures.values():
        np.testing.assert_array_equal(picture[..., 3], pictures["as it is"][..., 3])
    numbers = {name: len(np.unique(picture[seen][:, :3], axis=0)) for name, picture in pictures.items()}
    assert numbers["silhouette"] == 1
    assert min(numbers[name] for name in ("as it is", "no light", "mean colour")) > 50
    shades = pictures["mean colour"][seen][:, :3].astype(float)
    hues = shades / shades.mean(1, keepdims=True)
    assert hues.std(0).max() < 0.02
    means = [pictures[name][seen][:, :3].mean(0) for name in ("no light", "silhouette")]
    np.testing.assert_allclose(*means, atol=2)


def test_errors_of_all_looks_are_written(compare_looks, folder, tmp_path):
    arguments = [str(folder), "--views", "2", "--out", str(tmp_path / "looks.csv")]
    result = CliRunner().invoke(compare_looks.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "looks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(compare_looks.LOOKS)
    assert all(0 < float(row["error"]) < 0.2 for row in rows)
    assert "2 known, silhouette:" in result.output


def test_plain_surfaces_keep_what_a_look_does_not_change(compare_looks, folder):
    shown = read_object(folder / "box.ply").parts[0]
    plain = compare_looks.Plain(shown, True, None)
    light = np.array([0.0, 0, 1])
    np.testing.assert_array_equal(plain.facing(light), shown.facing(light))
    rest = (np.array([0, 3]), np.full((2, 3), 1 / 3), np.zeros((2, 3)), np.ones(2))
    np.testing.assert_array_equal(plain.colours(*rest), shown.colours(*rest))
