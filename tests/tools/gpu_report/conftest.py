"""Modules of the report, a place for its steps to work in, and programs that pretend."""

from __future__ import annotations

import os
from importlib import import_module

import pytest


@pytest.fixture
def module(gpu_report):
    """A module of the report by its name."""
    return lambda name: import_module(f"gpu_report.{name}")


@pytest.fixture
def steps(module):
    return module("steps")


@pytest.fixture
def place(module, tmp_path):
    """Where steps work, as on a device of architecture 90."""
    place = module("plan").Place(tmp_path, tmp_path / "log.txt", tmp_path / "results.jsonl", "90", small=True)
    for file in (place.log, place.results):
        file.write_text("")
    return place


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Puts a program on the PATH: name and the shell commands that it runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(name: str, commands: str) -> None:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)

    return make


@pytest.fixture
def described():
    """What is known of the environment, as the report takes it."""
    return {
        "devices": [{"name": "A GPU", "compute capability": "9.0", "memory_gb": 80.0}],
        "cuda": "13.0",
        "python": "3.11",
        "packages": {"torch": "2.13.0", "triton": "3.6.0"},
        "commit": "abc",
    }
