"""Links, paths, names and options in the documentation exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from pkgutil import resolve_name

import pytest
from typer.main import get_command

from latentdem.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob(".github/**/*.md")]
)
# The changelog also names what is gone.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
# Where a path in backticks may start: prose names a module from its package on.
BASES = [ROOT, ROOT / "python", ROOT / "python" / "latentdem"]
FOLDERS = (
    r"\.ci|\.github|benchmarks|csrc|docs|examples|kernels|latentdem|latentdem_ext|python|tests|tools|"
    r"api|cli|evaluation|integrations|io|operators|output|priors|restoration|search|solver|three_d"
)
REPOSITORY_PATH = re.compile(rf"(?:{FOLDERS})/[\w./*-]+|[\w-]+\.(?:py|toml|cff|txt|yaml)")


@cache
def prose(page: Path) -> str:
    """The page without its code blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^(?: {4}).*$", "", text, flags=re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_backticks_exist(page):
    for name in re.findall(r"`([^`\s]+)`", prose(page)):
        if REPOSITORY_PATH.fullmatch(name) and "NAME" not in name:
            assert any(list(base.glob(name.rstrip("/"))) for base in BASES), name


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    assert set(ROOT.glob("docs/*/*.md")) <= linked


def test_every_figure_is_shown():
    shown = {
        Path(target).name for page in PAGES for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert {path.name for path in ROOT.glob("docs/figures/*")} <= shown


def test_pages_named_in_the_code_exist():
    sources = [
        path
        for folder in ("python", "latentdem_ext", "kernels", "csrc", "tools", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".cpp", ".hpp", ".cu", ".cuh")
    ]
    for source in sources:
        for name in re.findall(r"\b(?:docs|examples)/[\w/]+\.md\b", source.read_text()):
            assert (ROOT / name).exists(), f"{source.relative_to(ROOT)}: {name}"


def command_sections() -> dict[str, str]:
    """The sections on single commands of the page on the command line."""
    page = (ROOT / "docs" / "reference" / "command_line.md").read_text()
    return dict(re.findall(r"^## `latentdem ([\w-]+)[^\n]*\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))


def test_every_command_is_documented():
    assert set(command_sections()) == set(get_command(app).commands)


@pytest.mark.parametrize("name", list(command_sections()))
def test_every_option_of_a_command_is_documented(name):
    options = {
        option
        for parameter in get_command(app).commands[name].params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }
    assert set(re.findall(r"`(--[\w-]+)`", command_sections()[name])) == options


def documented_names() -> list[str]:
    """Dotted names of both packages, in backticks in the prose and in imports of the examples."""
    names = set()
    for page in CURRENT:
        names |= set(re.findall(r"`((?:latentdem|latentdem_ext)(?:\.\w+)+)(?=[(`])", prose(page)))
        for module, imported in re.findall(
            r"^ *from (latentdem[\w.]*) import (.+)$", page.read_text(), re.MULTILINE
        ):
            names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return sorted(names)


@pytest.mark.parametrize("name", documented_names())
def test_documented_names_can_be_imported(name):
    if "deepinv" in name:
        pytest.importorskip("deepinv", reason="the extra deepinv is not installed")
    resolve_name(name)
