"""Known views of crops: their principal points are found with the cameras, and they are cropped again."""

from __future__ import annotations

import pytest
import torch

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.pose_search import candidates
from latentdem.three_d.pose_search.known_views import KnownViews, find_poses
from latentdem.three_d.priors import adaptation

from ..tiny_priors import crops, finite, tiny

CONFIG = ReconstructionConfig(hypotheses=2, refinements=4)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def coarse_grid(monkeypatch):
    """Few candidates and few steps of the bundle adjustment."""
    monkeypatch.setattr(candidates, "GRID_AZIMUTHS", 6)
    monkeypatch.setattr(candidates, "GRID_POLARS", (-30.0, 0.0, 30.0))
    monkeypatch.setattr(adaptation, "BUNDLE_STEPS", 4)


def cropped_views(prior, count: int = 2):
    """Crops of two or three pictures, and the known views that they show."""
    cut = crops(prior.image_size, count)
    return cut, KnownViews.of(cut.pictures(), prior, CPU, mirrored=True)


def search(prior, cut, known):
    """Posterior of the poses, with checks of the progress and the confidence."""
    shares: list[float] = []
    generator = torch.Generator().manual_seed(0)
    posterior, confidence = find_poses(prior, known, cut, CONFIG, generator, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert confidence.shape == (len(known.pixels),)
    return posterior


def test_polar_angles_are_averaged_over_pictures_and_mirror_images():
    prior = tiny()
    _, known = cropped_views(prior)
    both = [prior.condition(pixels).polar for pixels in (known.pixels, known.pixels.flip(-1))]
    torch.testing.assert_close(known.condition.polar, (both[0] + both[1]) / 2)
    assert torch.equal(known.mirrored.polar, both[1])
    plain = KnownViews.of(known.pictures, prior, CPU, mirrored=False)
    assert plain.mirrored is None
    assert torch.equal(plain.condition.polar, both[0])


def test_polar_angles_of_crops_are_averaged_with_those_estimated_from_them():
    prior = tiny()
    cut, known = cropped_views(prior)
    assert cut.polar is None
    cut.polar = torch.tensor([1.0, 1.5])
    expected = (known.condition.polar + cut.polar) / 2
    of_crops = KnownViews.of(known.pictures, prior, CPU, True, cut)
    torch.testing.assert_close(of_crops.condition.polar, expected)
    again = known.recropped(cut, prior, torch.zeros(2, 5))  # the same estimate counts for other crops
    own = KnownViews.of(again.pictures, prior, CPU, mirrored=True).condition.polar
    torch.testing.assert_close(again.condition.polar, (own + cut.polar) / 2)


@pytest.mark.parametrize("count", [2, 3])
def test_principal_points_and_distances_of_crops_are_found(count):
    """The final crops determine them, so they are the same in all hypotheses."""
    prior = tiny()
    cut, known = cropped_views(prior, count)
    cameras = search(prior, cut, known).cameras
    assert cameras.shape[1:] == (count, 5)
    assert cameras[..., 3:].any()
    assert cameras[:, 1:, 2].any()
    assert torch.equal(cameras[:, :, 2:], cameras[:1, :, 2:].expand(len(cameras), -1, -1))
    assert not cameras[:, 0, 1:3].any()


def single(prior):
    """The exact prior in single precision."""
    for name in ("points", "colours", "cameras", "alphas_cumprod"):
        setattr(prior, name, getattr(prior, name).float())
    return prior


@pytest.mark.parametrize(("prior", "cropped"), [(tiny(), False), (single(finite()), True)])
def test_no_principal_points_without_crops_or_polar_angles(prior, cropped):
    """For pictures that are used as they are, and with a prior that estimates no cameras."""
    cut, known = cropped_views(prior)
    posterior = search(prior, cut if cropped else None, known)
    assert posterior.cameras.shape[1:] == (2, 3)


def test_views_are_recropped_around_the_origin():
    prior = tiny()
    cut, known = cropped_views(prior)
    cameras = torch.tensor([[1.2, 0.0, 0.0, 0.05, 0.0], [1.3, 0.5, 0.1, -0.02, 0.1]])
    recropped = known.recropped(cut, prior, cameras)
    expected = torch.cat([picture.pixels for picture in cut.framed(cameras).pictures()])
    assert torch.equal(recropped.pixels, expected)
    assert not torch.equal(recropped.pixels, known.pixels)
    assert recropped.mirrored is not None
