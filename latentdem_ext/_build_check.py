"""Refuses an import from a source tree that was not built: the operations would silently lack native code."""

from __future__ import annotations

import json
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def require_build(folder: Path) -> None:
    """Refuse a source folder of the package in which no build has put its modules.

    `pip install -e .` writes `_build.json` beside them, also with LATENTDEM_NATIVE=OFF, where there are none.
    An installed package is not in a source tree and always passes.

    Raises:
        ImportError: `folder` belongs to a source tree that was not built, or not for this Python.
    """
    if not ((folder.parent / "setup.py").exists() and (folder.parent / "csrc").is_dir()):
        return
    try:
        native = json.loads((folder / "_build.json").read_text()).get("native", True)
    except OSError:
        problem = "has not been built"
    else:
        if not native or any((folder / f"_cpu{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
            return
        problem = "has not been built for this Python"
    raise ImportError(
        f"latentdem_ext was imported from the source folder {folder}, which {problem}; start Python in another "
        "folder (or run `pytest` instead of `python -m pytest`), or install with `pip install -e .`"
    )


require_build(Path(__file__).resolve().parent)
