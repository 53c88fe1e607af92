"""The recipes of the documentation for programs of other people, run on stand-ins of the same conventions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latentdem.evaluation.method_names import split_methods
from latentdem.evaluation.picture_comparison import OWN
from latentdem.evaluation.protocols import PROTOCOLS

from . import stand_ins
from .conftest import Table

RECIPES = Path(__file__).resolve().parents[3] / "docs" / "guide" / "comparisons.md"

pytestmark = pytest.mark.usefixtures("no_pictures")


def recipes() -> dict[str, tuple[list[str], str]]:
    """Options and command of each recipe of the documentation that runs a program."""
    line = r"^    latentdem evaluate \S+ (.*?)--methods '([\w-]+)=(command:.+)'$"
    found = re.findall(line, RECIPES.read_text().partition("## Recipes")[2], re.MULTILINE)
    return {name: (options.split(), command) for options, name, command in found}


def test_every_program_that_runs_by_itself_has_a_recipe() -> None:
    assert set(recipes()) == {"MPRNet", "Restormer", "NAFNet", "DeblurGAN-v2", "Self-Deblur"}


@pytest.mark.parametrize("name", list(recipes()))
def test_recipe_runs_a_program_of_the_same_conventions(
    name: str, photos: Path, levin: Path, tmp_path: Path, cli: Any, table: Table
) -> None:
    stand_ins.install(tmp_path / "home")
    options, command = recipes()[name]
    command = command.replace("~/", f"{tmp_path}/home/").replace("python ", f"{sys.executable} ")
    folder = levin if "--protocol" in options else photos
    out = tmp_path / "out"
    run = ("evaluate", folder, *options, "-o", out, "--kernel-size", 9, "--limit", 1)
    result = cli.run(*run, "--methods", f"{name}={command}")
    assert "Failed" not in result.stdout
    (row,) = table(out / "metrics.csv")
    assert float(row["psnr"]) == pytest.approx(float(row["psnr_input"]), abs=0.2)
    assert (row["mnc"] != "") == (name == "Self-Deblur")


def test_recipe_of_fast_diffusion_em_runs_on_exported_inputs(
    photos: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    stand_ins.install(tmp_path / "home")
    page = RECIPES.read_text().partition("### FastDiffusionEM")[2].partition("### BlindDPS")[0]
    monkeypatch.chdir(tmp_path)
    cli.run("evaluate", photos, "--kernel-size", 9, "--export", "inputs")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    (command,) = re.findall(r"^    (cd ~/.*)$", page, re.MULTILINE)
    command = command.replace("~/", f"{tmp_path}/home/").replace("python ", f"{sys.executable} ")
    subprocess.run(command.replace("PICKLES", f"{tmp_path}/pickles"), shell=True, check=True)
    (method,) = re.findall(r"--methods 'FastEM=(published:\S+)'$", page, re.MULTILINE)
    method = method.replace("~/", f"{tmp_path}/home/")
    result = cli.run("evaluate", photos, "--kernel-size", 9, "-o", "out", "--methods", f"FastEM={method}")
    assert "| FastEM | 2 |" in result.stdout
    for row in table(Path("out/metrics.csv")):
        assert float(row["psnr"]) == pytest.approx(float(row["psnr_input"]), abs=0.2)
        assert float(row["mnc"]) > 0.99  # but for the rounding of the picture of the kernel


def test_commands_of_the_paper_tables_name_methods_of_their_tables() -> None:
    page = (RECIPES.parents[1] / "research" / "reproduction.md").read_text()
    line = r"^    latentdem evaluate \S+ .*--protocol (\S+) .*--methods '?([^'\n]+)'?$"
    commands = re.findall(line, page, re.MULTILINE)
    tables = {name for name, _ in commands}
    assert {"paper-table1", "paper-table2", "paper-table6", "lai"} <= tables
    for protocol, methods in commands:
        names, _ = split_methods([methods])
        known = [entry.name for entry in PROTOCOLS[protocol].entries] if protocol in PROTOCOLS else list(OWN)
        assert set(names) <= {*known, "all"}
