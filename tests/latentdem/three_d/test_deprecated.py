"""Names and modules of version 0.1 still work, with a warning that gives the new ones."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib import import_module

import pytest

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem import three_d
from latentdem.three_d import Reconstruction, ReconstructionConfig, reconstruct


def test_recipe_is_a_config():
    with pytest.warns(DeprecationWarning, match=r"Recipe is now called latentdem.three_d.ReconstructionConfig"):
        from latentdem.three_d import Recipe
    recipe = Recipe(radius=True, believed=2)
    assert isinstance(recipe, ReconstructionConfig)
    assert recipe.believed == recipe.posterior_size == 2
    assert asdict(recipe) == asdict(ReconstructionConfig(radius=True, posterior_size=2))
    assert replace(recipe, hypotheses=3).hypotheses == 3
    assert Recipe(4).hypotheses == 4


def test_result_is_a_reconstruction():
    with pytest.warns(DeprecationWarning, match="Result is now called latentdem.three_d.Reconstruction"):
        assert three_d.Result is Reconstruction


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("surface", "mesh.surface", "fit_surface"),
        ("meshing", "output.result", "solid_of"),
        ("loading", "priors.loading", "load_view_prior"),
        ("zero123", "priors.zero123", "Zero123Prior"),
        ("scenes", "synthetic.scenes", "random_scene"),
        ("measures", "evaluation.measures", "pose_error"),
    ],
)
def test_modules_can_be_imported_by_their_old_names(old, new, name):
    module = import_module(f"latentdem.three_d.{old}")
    assert getattr(three_d, old) is module
    with pytest.warns(DeprecationWarning, match=rf"three_d\.{old} is now called latentdem\.three_d\.{new}\."):
        value = getattr(module, name)
    assert value is getattr(import_module(f"latentdem.three_d.{new}"), name)


def test_names_are_imported_from_old_modules():
    with pytest.warns(DeprecationWarning, match=r"mesh\.surface"):
        from latentdem.three_d.surface import write_mesh
    assert write_mesh.__module__ == "latentdem.three_d.mesh.surface"


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        three_d.nothing  # noqa: B018


def test_recipe_argument_of_reconstruct(exact):
    problem, config = exact(1), ReconstructionConfig(hypotheses=3)
    with pytest.warns(DeprecationWarning, match="recipe is now called config"):
        result = reconstruct(problem.views, prior=problem.prior, azimuths=1, steps=2, recipe=config)
    assert result.settings["config"]["hypotheses"] == 3
