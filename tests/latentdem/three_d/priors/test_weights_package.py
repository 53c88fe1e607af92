"""Where the weights of the embedded view-conditioned prior come from."""

from __future__ import annotations

import pytest

from latentdem.errors import UserError
from latentdem.three_d.priors import embedded


def test_weights_that_are_not_installed_are_missed_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_3D_WEIGHTS", tmp_path / "missing")
    with pytest.raises(
        UserError, match="are a package of their own; install it with: pip install latentdem-3d-weights"
    ):
        embedded.EmbeddedViewPrior.from_pretrained(tmp_path / "missing")


def test_weights_of_an_installed_package_are_found_where_there_is_no_clone(tmp_path, monkeypatch):
    package = tmp_path / "latentdem_3d_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(
        embedded, "__file__", str(tmp_path / "latentdem" / "three_d" / "priors" / "embedded.py")
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert embedded._weights_folder() == package
