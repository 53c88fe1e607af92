"""The imports of the packages point one way: no circles, and no arrow up through the layers below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    name: next(folder for folder in folders if (folder / "__init__.py").exists())
    for name, folders in {
        "latentdem": (ROOT / "python" / "latentdem",),
        "latentdem_ext": (ROOT / "python" / "latentdem_ext", ROOT / "latentdem_ext"),
        "latentdem_kernels": (ROOT / "kernels",),
    }.items()
}

# From the top down. A module belongs to the longest of these names that it begins with, and may import from its
# own layer and from those below. Imports inside functions and under TYPE_CHECKING count, too.
LAYERS = (
    ("latentdem.__main__",),
    ("latentdem.cli",),
    ("latentdem.web",),
    (
        "latentdem",  # the public names
        "latentdem.api",
        "latentdem.pipeline",
        "latentdem.three_d",
        "latentdem.evaluation",
        "latentdem.integrations",
    ),
    ("latentdem.restoration",),
    ("latentdem.search",),
    ("latentdem.output", "latentdem.solver"),
    ("latentdem.operators",),
    ("latentdem.distributed",),
    ("latentdem.priors", "latentdem.io"),
    ("latentdem.metrics", "latentdem.checks", "latentdem.context", "latentdem.errors"),
    ("latentdem_ext",),
    ("latentdem_kernels",),
)
RANKS = {name: rank for rank, names in enumerate(reversed(LAYERS)) for name in names}
# An old public name that still works.
ALLOWED = {("latentdem_ext.integrations.deepinv", "latentdem.integrations.deepinv")}
UNLISTED = 100  # a new module of `latentdem` has to be given a layer

Arrows = dict[tuple[str, str], int]


def rank_of(module: str) -> int:
    if module.startswith("latentdem.") and ".".join(module.split(".")[:2]) not in RANKS:
        return UNLISTED
    names = (name for name in RANKS if module == name or module.startswith(name + "."))
    return RANKS[max(names, key=len)]


def modules() -> dict[str, Path]:
    """Files of the packages by the full name of the module."""
    files = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return files


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Full names that a module imports with their lines; `from package import name` gives `package.name`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        match node:  # importlib.import_module("name")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name))]):
                yield name, node.lineno


def arrows() -> Arrows:
    """Lines of the imports by (importing module, imported module)."""
    files, lines = modules(), {}
    for module, path in files.items():
        for name, line in imported(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"):
            target = name if name in files else name.rpartition(".")[0]
            if target in files and target != module and (module, target) not in ALLOWED:
                lines.setdefault((module, target), line)
    return lines


def circle(edges: Arrows) -> list[str]:
    """The modules of one circle of imports, the first one repeated at the end; empty where there is none."""
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for target in targets.get(module, ()):
            if found := visit(target, [*path, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in targets if (found := visit(module, []))), [])


@pytest.fixture(scope="module")
def edges() -> Arrows:
    return arrows()


def test_no_circle_of_imports(edges: Arrows) -> None:
    found = circle(edges)
    arrows = [f"{a}:{edges[a, b]} imports {b}" for a, b in pairwise(found)]
    assert not found, "circle of imports:\n" + "\n".join(arrows)


def test_every_import_points_down(edges: Arrows) -> None:
    upward = [
        f"{source}:{line} imports {target}"
        for (source, target), line in edges.items()
        if rank_of(source) < rank_of(target)
    ]
    assert not upward, "imports that point up:\n" + "\n".join(upward)


def test_every_module_has_a_layer() -> None:
    unlisted = [module for module in modules() if rank_of(module) == UNLISTED]
    assert not unlisted, f"give these a place in LAYERS: {', '.join(unlisted)}"


def test_only_the_bindings_include_pybind11() -> None:
    # Every file that does takes seconds to compile.
    included = ("<pybind11/", '"bindings.hpp"')
    sources = [
        path for path in (ROOT / "csrc").glob("*/*") if any(name in path.read_text() for name in included)
    ]
    assert sorted(path.relative_to(ROOT / "csrc").as_posix() for path in sources) == [
        "cpu/bindings.cpp",
        "cpu/bindings.hpp",
        "cpu/bindings_frustum.cpp",
        "cuda/bindings.cpp",
    ]


def test_a_circle_is_named() -> None:
    edges = {("a", "b"): 1, ("b", "c"): 2, ("c", "b"): 3, ("d", "a"): 4}
    assert circle(edges) == ["b", "c", "b"]
    assert circle({("a", "b"): 1, ("a", "c"): 2, ("b", "c"): 3}) == []


def test_relative_imports_in_functions_and_for_types_are_found() -> None:
    source = (
        "if TYPE_CHECKING:\n    from ..errors import UserError\n"
        "def f():\n    from . import files\n    import latentdem_ext\n"
    )
    found = dict(imported(source, "latentdem.io.images", False))
    assert found == {"latentdem.errors.UserError": 2, "latentdem.io.files": 4, "latentdem_ext": 5}
    assert dict(imported("from .base import Operator", "latentdem.operators", True)) == {
        "latentdem.operators.base.Operator": 1
    }
