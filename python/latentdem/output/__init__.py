"""What a restoration gives and the files it leaves: result, figures, report."""

from __future__ import annotations

import os
import sys


def _do_without_missing_backend() -> None:
    """Lets matplotlib be imported where MPLBACKEND names a backend that is not installed.

    Notebooks leave such a name behind in the environment. Figures are drawn here without any backend.
    """
    try:
        import matplotlib  # noqa: F401
    except ValueError:
        del os.environ["MPLBACKEND"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # what a failed import leaves cannot be imported again
    except ImportError:
        pass  # where figures are drawn, the error is of use


if "MPLBACKEND" in os.environ:
    _do_without_missing_backend()
