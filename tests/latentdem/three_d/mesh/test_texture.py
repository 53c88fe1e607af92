"""Meshes that get outlines and colours from pictures of an object whose true shape and colours are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")
pytest.importorskip("xatlas", reason="the extra three-d is not installed")

import trimesh

from latentdem.three_d.mesh import texture
from latentdem.three_d.mesh.detail import detailed_views
from latentdem.three_d.mesh.drawing import draw
from latentdem.three_d.mesh.hull import PosedViews
from latentdem.three_d.mesh.outlines import meet_outlines
from latentdem.three_d.mesh.surface import posed_views, write_mesh
from latentdem.three_d.mesh.texture import colour_by

SIZE = 64
CAMERAS = torch.tensor([[1.2, 0.0, 1.6], [1.3, 2.0, 1.6]])


def ball(radius: float = 0.4) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(4, radius)
    mesh.visual.vertex_colors = np.tile([128, 128, 128, 255], (len(mesh.vertices), 1))
    return mesh


def striped(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh in red above and blue below."""
    upper = mesh.vertices[:, 2:] > 0
    mesh.visual.vertex_colors = np.where(upper, [200, 40, 40, 255], [40, 40, 200, 255]).astype(np.uint8)
    return mesh


@pytest.fixture(scope="module")
def pictures() -> PosedViews:
    """Two pictures of a striped ball, drawn from its vertex colours."""
    from latentdem.three_d.synthetic.render import on_white, render_mesh

    rgba = render_mesh(striped(ball()), CAMERAS, SIZE)
    views = torch.from_numpy(on_white(rgba)).movedim(-1, 1) / 127.5 - 1
    return posed_views(views, CAMERAS, torch.from_numpy(rgba[..., 3]) / 255)


def psnr_on(mask: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    error = ((first - second) / 2).square().mean(0)[mask > 0.5].mean()
    return float(-10 * error.log10())


def test_pictures_are_shown_again_from_their_cameras(pictures: PosedViews) -> None:
    drawn, covered = draw(colour_by(ball(), pictures), CAMERAS, SIZE)
    for view, mask, known, share in zip(drawn, pictures.masks, pictures.colours, covered, strict=True):
        assert psnr_on(mask, view, 2 * known - 1) > 27
        assert float((share - mask).abs().mean()) < 0.01


def test_the_edge_of_what_is_behind_something_else_is_coloured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is shown again beside a small ball in front of a large one, where the depth jumps."""
    from latentdem.three_d.synthetic.render import on_white, render_mesh

    small = trimesh.creation.icosphere(3, 0.1)
    small.apply_translation([0.5, 0.0, 0.2])
    small.visual.vertex_colors = np.tile([30, 160, 60, 255], (len(small.vertices), 1))
    true = trimesh.util.concatenate([striped(ball(0.3)), small])
    rgba = render_mesh(true, CAMERAS[:1], SIZE)
    views = torch.from_numpy(on_white(rgba)).movedim(-1, 1) / 127.5 - 1
    shown = posed_views(views, CAMERAS[:1], torch.from_numpy(rgba[..., 3]) / 255)
    grey = true.copy()
    grey.visual.vertex_colors = np.tile([128, 128, 128, 255], (len(grey.vertices), 1))

    def again() -> float:
        drawn, _ = draw(colour_by(grey, shown), CAMERAS[:1], SIZE)
        return psnr_on(shown.masks[0], drawn[0], views[0])

    found = again()
    monkeypatch.setattr(texture, "BEHIND", -1.0)
    assert again() < 25
    assert found > 33


def test_what_no_picture_shows_continues_the_colours_beside_it(pictures: PosedViews) -> None:
    behind = torch.tensor([[1.3, -2.2, 1.6]])
    view = draw(colour_by(ball(), pictures), behind, SIZE)[0][0]
    upper, lower = view[:, 20, 32], view[:, 46, 32]
    assert float((upper[0] - upper[2]) - (lower[0] - lower[2])) > 0.3


def test_a_surface_of_another_size_meets_the_outlines(pictures: PosedViews) -> None:
    mesh = ball(0.33)
    moved = meet_outlines(mesh, pictures)
    before, after = (
        [
            float((share - mask).abs().sum() / mask.sum())
            for share, mask in zip(shares, pictures.masks, strict=True)
        ]
        for shares in (draw(colour_by(each, pictures), CAMERAS, SIZE)[1] for each in (mesh, moved))
    )
    assert min(before) > 0.2
    assert max(after) < 0.06
    assert moved.is_watertight


def test_views_are_the_mesh_near_a_picture_and_the_prior_far_away(pictures: PosedViews) -> None:
    mesh = colour_by(ball(), pictures)
    cameras = torch.stack([CAMERAS[0], torch.tensor([1.2, -2.2, 1.6])])
    prior = torch.linspace(-1, 1, 32).expand(2, 3, 32, 32)
    views = detailed_views(prior, cameras, CAMERAS, mesh, SIZE)
    drawn, _ = draw(mesh, cameras, SIZE)
    torch.testing.assert_close(views[0], drawn[0], atol=2e-3, rtol=0)
    assert float((views[1] - torch.linspace(-1, 1, SIZE)).abs().max()) < 0.1


def test_a_glb_file_holds_the_texture_and_smooth_normals(pictures: PosedViews, tmp_path) -> None:
    write_mesh(colour_by(ball(), pictures), tmp_path / "ball.glb")
    (mesh,) = trimesh.load_scene(tmp_path / "ball.glb").geometry.values()
    assert mesh.visual.material.baseColorTexture.size[0] > 32
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    radial = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.vertex_normals * radial).sum(1).min() > 0.98
