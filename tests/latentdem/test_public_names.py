"""The names of the package: public ones, and old ones that still work."""

from __future__ import annotations

import importlib
import importlib.metadata
import pydoc
import rlcompleter

import pytest

import latentdem
from latentdem.search.config import SearchConfig


def test_every_public_name_can_be_imported_and_completed() -> None:
    for name in latentdem.__all__:
        assert getattr(latentdem, name) is not None
    assert set(latentdem.__all__) <= set(dir(latentdem))


@pytest.mark.parametrize("name", ["evaluation", "integrations", "metrics", "operators", "priors", "three_d"])
def test_documented_modules_are_attributes(name: str) -> None:
    assert getattr(latentdem, name) is importlib.import_module(f"latentdem.{name}")


def test_prompts_complete_public_names_and_no_helpers() -> None:
    found = {name for name in dir(latentdem) if not name.startswith("__")}
    assert found == set(latentdem.__all__) - {"__version__"}
    completer = rlcompleter.Completer({"latentdem": latentdem})
    assert completer.complete("latentdem.debl", 0) == "latentdem.deblur("


def test_help_describes_the_functions() -> None:
    text = pydoc.render_doc(latentdem, renderer=pydoc.plaintext)
    functions = text[text.index("\nFUNCTIONS\n") :]
    assert "\n    deblur(" in functions
    assert "\n    restore(" in functions


def test_the_version_is_that_of_the_distribution() -> None:
    assert latentdem.__version__ == importlib.metadata.version("latentdem")


def test_an_old_name_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"latentdem\.Recipe is called SearchConfig now"):
        assert latentdem.Recipe is SearchConfig
    assert "Recipe" not in dir(latentdem)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Unknown'"):
        _ = latentdem.Unknown
