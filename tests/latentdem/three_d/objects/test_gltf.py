"""What is special about GLB files: embedded textures, their placement, compression, and colours of vertices."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh

from latentdem.errors import UserError
from latentdem.three_d.objects.files import read_object
from latentdem.three_d.synthetic.render import render

FRONT = torch.tensor([[math.pi / 2, 0.0, 1.6]])  # from the x axis: y to the right, z up
RED, GREEN, BLUE, YELLOW = (220, 0, 0), (0, 220, 0), (0, 0, 220), (220, 220, 0)
IMAGE = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)


def write_quad(path, edit=None, **attributes):
    """A square in the yz plane that faces the x axis, with four colours on it.

    Args:
        path: of the GLB file.
        edit: changes the JSON and the binary part of the file before it is written.
        attributes: values of the vertices.
    """
    vertices = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], float)
    visual = trimesh.visual.TextureVisuals(
        uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float),
        material=trimesh.visual.material.PBRMaterial(
            name="print", baseColorTexture=Image.fromarray(IMAGE).resize((32, 32), 0)
        ),
    )
    visual.vertex_attributes.update(attributes)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    data = mesh.export(file_type="glb")
    (length,) = struct.unpack_from("<I", data, 12)
    header, binary = json.loads(data[20 : 20 + length]), bytearray(data[28 + length :])
    if edit is not None:
        edit(header, binary)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(
        struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(binary), len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )
    return path


def seen(path):
    """Hues in the four quarters of the square, row by row."""
    picture = render(read_object(path), FRONT, 32)[0].astype(int)
    places = [(12, 12), (12, 19), (19, 12), (19, 19)]
    return [tuple(np.rint(picture[place][:3] / picture[place][:3].max()).astype(int)) for place in places]


def hues(*colours):
    return [tuple(int(value > 0) for value in colour) for colour in colours]


def transform(**values):
    """An edit that gives the texture a placement."""

    def edit(header, binary):
        info = header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        info["extensions"] = {"KHR_texture_transform": values}

    return edit


def test_texture_is_shown_as_it_lies(tmp_path):
    assert seen(write_quad(tmp_path / "quad.glb")) == hues(RED, GREEN, BLUE, YELLOW)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"offset": [0.5, 0.0]}, (GREEN, RED, YELLOW, BLUE)),
        ({"offset": [0.0, 0.5]}, (BLUE, YELLOW, RED, GREEN)),
        ({"scale": [0.5, 0.5], "offset": [0.5, 0.0]}, (GREEN, GREEN, GREEN, GREEN)),
        ({"scale": [2.0, 0.5]}, (GREEN, RED, GREEN, RED)),  # its upper half, twice across
        ({"rotation": math.pi / 2}, (BLUE, RED, YELLOW, GREEN)),  # the picture is turned clockwise
    ],
)
def test_texture_is_moved_by_its_placement(tmp_path, values, expected):
    assert seen(write_quad(tmp_path / "quad.glb", transform(**values))) == hues(*expected)


def test_texture_may_use_other_coordinates_than_the_first(tmp_path):
    """The second coordinates are those of the first corner everywhere."""

    def edit(header, binary):
        attributes = header["meshes"][0]["primitives"][0]["attributes"]
        coordinates = header["accessors"][attributes["TEXCOORD_0"]]
        view = dict(header["bufferViews"][coordinates["bufferView"]], byteOffset=len(binary))
        binary += np.tile(np.float32([0.25, 0.75]), (4, 1)).tobytes()
        header["buffers"][0]["byteLength"] = len(binary)
        header["bufferViews"].append(view)
        header["accessors"].append(dict(coordinates, bufferView=len(header["bufferViews"]) - 1))
        attributes["TEXCOORD_1"] = len(header["accessors"]) - 1
        header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1

    assert seen(write_quad(tmp_path / "quad.glb", edit)) == hues(BLUE, BLUE, BLUE, BLUE)


def test_texture_is_multiplied_by_the_colours_of_vertices(tmp_path):
    magenta = np.tile(np.array([[255, 0, 255, 255]], np.uint8), (4, 1))
    path = write_quad(tmp_path / "quad.glb", color=magenta)
    picture = render(read_object(path), FRONT, 32)[0]
    assert picture[12, 12, 0] > 100  # red stays
    assert picture[12, 19, :3].max() == 0  # green is gone
    assert picture[19, 12, 2] > 100
    assert picture[19, 19, 0] > 100
    assert picture[19, 19, 1] == 0  # yellow becomes red


def damage(header, binary):
    view = header["bufferViews"][header["images"][0]["bufferView"]]
    start = view.get("byteOffset", 0)
    binary[start : start + view["byteLength"]] = bytes(view["byteLength"])


def remove(header, binary):
    del header["textures"][0]["source"]


def basis(header, binary):
    header["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": 0}}}


@pytest.mark.parametrize("edit", [damage, remove, basis])
def test_embedded_textures_that_cannot_be_read_are_missed(tmp_path, edit):
    with pytest.raises(UserError, match="The texture of material 'print' is missing or cannot be read"):
        read_object(write_quad(tmp_path / "quad.glb", edit))


def test_compressed_meshes_are_refused(tmp_path):
    def edit(header, binary):
        header["extensionsRequired"] = ["KHR_texture_transform", "KHR_draco_mesh_compression"]

    with pytest.raises(UserError, match=r"compressed \(KHR_draco_mesh_compression\).*save it uncompressed"):
        read_object(write_quad(tmp_path / "quad.glb", edit))


@pytest.mark.parametrize("length", [0, 10, 300])
def test_damaged_files_get_one_sentence(tmp_path, length):
    path = write_quad(tmp_path / "quad.glb")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        UserError, match="The mesh cannot be read; it is damaged, or not in the format GLB"
    ) as error:
        read_object(path)
    assert "\n" not in str(error.value)
