from __future__ import annotations

import sys
from typing import Any

import pytest


def test_a_missing_framework_is_one_sentence(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "latentdem.web.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.sentence("serve") == (
        "The page in the browser needs uvicorn; install with: pip install starlette uvicorn"
    )


def test_a_taken_port_ends_the_command_before_anything_is_loaded(cli: Any) -> None:
    pytest.importorskip("starlette", reason="the extra web is not installed")
    from latentdem.web.server import open_port

    with open_port(0) as listener:
        port = listener.getsockname()[1]
        assert cli.sentence("serve", "--port", port, "--prior", "none").startswith(
            f"Port {port} cannot be used"
        )
