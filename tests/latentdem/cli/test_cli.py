from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    "args",
    [
        ["deblur"],
        ["deblur", "a.png", "--e-step", "other"],
        ["deblur", "a.png", "--device", "tpu"],
        ["deblur", "a.png", "--device", "cuda:x"],
        ["deblur", "a.png", "--precision", "half"],
        ["deblur", "a.png", "--noise-sigma", "0"],
        ["deblur", "a.png", "--noise-sigma", "much"],
        ["deblur", "a.png", "--format", "gif"],
        ["restore", "a.png", "--operator", "gamma", "--batch-size", "0"],
        ["deblur", "a.png", "--steps", "0"],
        ["blur", "a.png"],
        ["blur", "a.png", "-o", "b.png", "--intensity", "1.5"],
        ["evaluate"],
        ["unknown"],
    ],
)
def test_usage_errors(cli: Any, here: Path, args: list[str]) -> None:
    assert "Usage:" in cli.run(*args, status=2).stderr


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        *((name, "IMAGE...") for name in ("deblur", "restore", "views")),
        ("blur", "IMAGE"),
        ("evaluate", "DIR"),
        ("evaluate-3d", "[OBJECTS]"),
    ],
)
def test_usage_names_the_arguments_plainly(cli: Any, command: str, arguments: str) -> None:
    assert cli.run(command, "--help").stdout.splitlines()[0].endswith(f"{command} [OPTIONS] {arguments}")


def test_list_of_commands_has_whole_sentences(cli: Any) -> None:
    lines = cli.run("--help").stdout.partition("Commands:")[2].strip().splitlines()
    commands = lines[: lines.index("")] if "" in lines else lines
    assert len(commands) == 9
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_info(cli: Any) -> None:
    text = cli.run("info").stdout
    for word in ("latentdem", "torch", "device", "threads", "backend reference", "weights of views", "LPIPS"):
        assert word in text


def test_version(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    assert cli.run("--version").stdout == "latentdem 1.2.3\n"


@pytest.mark.parametrize("command", [[], ["deblur"], ["blur"], ["evaluate"], ["info"], ["restore"]])
def test_help_has_an_example(cli: Any, command: list[str]) -> None:
    assert "Example: latentdem" in cli.run(*command, "--help").stdout


def test_help_does_not_wait_for_torch() -> None:
    heavy = {"torch", "numpy", "matplotlib", "rich"}
    code = f"import sys, latentdem.cli; sys.exit(len({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_wait_by_spinning_unless_told_so(given: str | None, expected: str) -> None:
    code = "import os, latentdem.cli as c; c.app = dict; c.main(); print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("long", ["photo", "result"])
def test_names_that_are_too_long_are_one_sentence(cli: Any, here: Path, fake_deblur: Any, long: str) -> None:
    name = "x" * 300 + ".png"
    paths = [name] if long == "photo" else ["../photo.png", "-o", name]
    error = cli.run("deblur", *paths, status=1).stderr
    assert error.startswith("Cannot use xxx")
    assert error.endswith("file name too long.\n")
    assert error.count("\n") == 1
