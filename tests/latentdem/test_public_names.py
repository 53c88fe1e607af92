"""The names of the package: public ones, and old ones that still work."""

from __future__ import annotations

import importlib.metadata

import pytest

import latentdem
from latentdem.search.config import SearchConfig


def test_every_public_name_can_be_imported_and_completed() -> None:
    for name in latentdem.__all__:
        assert getattr(latentdem, name) is not None
    assert set(latentdem.__all__) <= set(dir(latentdem))


def test_the_version_is_that_of_the_distribution() -> None:
    assert latentdem.__version__ == importlib.metadata.version("latentdem")


def test_an_old_name_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"latentdem\.Recipe is called SearchConfig now"):
        assert latentdem.Recipe is SearchConfig
    assert "Recipe" not in dir(latentdem)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Unknown'"):
        _ = latentdem.Unknown
