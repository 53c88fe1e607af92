"""setup.py with programs that only pretend to be build tools: how it calls them and how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = EXTENSION_SUFFIXES[0]
LOG = "arguments"  # of the pretended cmake
# Records its arguments; "builds" the modules at once, with shell builtins alone.
CMAKE = """
echo "$@" >> "${0%/*}/arguments"
for argument in "$@"; do
    case "$argument" in
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=*) folder="${argument#*=}" ;;
        -DLATENTDEM_CUDA=ON) cuda=1 ;;
    esac
done
[ -z "$folder" ] && exit 0
echo new > "$folder/_cpu@SUFFIX@"
[ -z "$cuda" ] || echo new > "$folder/_cuda@SUFFIX@"
""".replace("@SUFFIX@", SUFFIX)


def setup(*command: str, where: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools", reason="the build needs setuptools")
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *command],
        cwd=where,
        env={key: value for key, value in os.environ.items() if not key.startswith("LATENTDEM_")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return setup("build_ext", f"--build-lib={folder}", f"--build-temp={folder}", **environment)


def record(folder: Path) -> str:
    """What the build has recorded about CUDA."""
    return json.loads((folder / "latentdem_ext" / "_build.json").read_text())["without_cuda"]


def program(path: Path, script: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_build_without_tools_says_what_is_missing_and_how_to_do_without(tmp_path):
    run = run_setup(tmp_path, PATH=str(tmp_path))
    assert run.returncode != 0
    assert "needs CMake (cmake), which was not found. Set LATENTDEM_NATIVE=OFF" in run.stderr
    for tool in ("cmake", "ninja"):
        program(tmp_path / tool)
    assert "needs a C++ compiler" in run_setup(tmp_path, PATH=str(tmp_path), CXX="no-such-compiler").stderr


@pytest.fixture
def tools(tmp_path) -> dict[str, str]:
    """An environment with build tools in tmp_path that do nothing but what CMAKE says."""
    pytest.importorskip("pybind11", reason="the build needs pybind11")
    program(tmp_path / "cmake", CMAKE)
    for tool in ("ninja", "c++"):
        program(tmp_path / tool)
    return {"PATH": str(tmp_path), "CXX": "c++"}


def test_cuda_module_is_left_out_where_nvcc_does_not_work(tmp_path, tools):
    nvcc = program(tmp_path / "nvcc", "echo 'host_config.h: fatal error: unsupported GNU version!' >&2; exit 1")
    no_program = program(tmp_path / "text")
    no_program.write_bytes(b"\x7fELF")
    missing = "nvcc, named by CUDACXX, on the PATH or below CUDA_PATH, was not found"
    broken = f"{nvcc} cannot compile a test program (host_config.h: fatal error: unsupported GNU version!)"
    no_start = f"{no_program} cannot be started (Exec format error)"
    for path, problem in (("no-such-nvcc", missing), (nvcc, broken), (no_program, no_start)):
        run = run_setup(tmp_path, **tools, CUDACXX=str(path), LATENTDEM_CUDA="ON")
        assert run.returncode != 0
        assert run.stderr.strip() == (
            f"LATENTDEM_CUDA=ON, but {problem}. Set LATENTDEM_CUDA=OFF to install without the CUDA module."
        )
        assert not (tmp_path / LOG).exists()
        run = run_setup(tmp_path, **tools, CUDACXX=str(path))
        assert run.returncode == 0, run.stderr
        assert f"latentdem is built without CUDA: {problem}." in run.stdout
        assert record(tmp_path) == problem
        assert "-DLATENTDEM_CUDA=OFF" in (tmp_path / LOG).read_text()
        (tmp_path / LOG).unlink()


def test_cuda_module_that_does_not_compile_is_left_out_unless_it_is_asked_for(tmp_path, tools):
    """The test program compiled, CMake with CUDA does not."""
    failing = (
        'case "$@" in *CUDA=ON*) echo "CMake Error at x.cmake:1 (message):"; echo "  no cudart"; exit 1; esac'
    )
    program(tmp_path / "cmake", failing + CMAKE)
    nvcc = program(tmp_path / "nvcc")
    problem = "the modules could not be configured (CMake Error at x.cmake:1 (message): no cudart)"
    run = run_setup(tmp_path, **tools, CUDACXX=str(nvcc))
    assert run.returncode == 0, run.stderr
    assert f"latentdem is built without CUDA: {problem}." in run.stdout
    assert record(tmp_path) == problem
    assert (tmp_path / "latentdem_ext" / f"_cpu{SUFFIX}").exists()
    run = run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA="ON")
    assert run.returncode != 0
    assert run.stderr.strip().endswith(
        "The native modules could not be configured (CMake Error at x.cmake:1 (message): no cudart). "
        "Set LATENTDEM_CUDA=OFF to install without the CUDA module. "
        "Set LATENTDEM_NATIVE=OFF to install without the native modules."
    )


def test_failure_to_compile_names_the_first_error(tmp_path, tools):
    program(tmp_path / "cmake", 'case "$1" in --build) echo "blur.cpp:3: error: no such thing"; exit 1; esac')
    run = run_setup(tmp_path, **tools, LATENTDEM_CUDA="OFF")
    assert run.returncode != 0
    assert "could not be compiled (blur.cpp:3: error: no such thing). Set LATENTDEM_NATIVE=OFF" in run.stderr


def test_build_in_place_leaves_nothing_of_the_last_one(tmp_path, tools):
    source = tmp_path / "source"
    for package in ("python/latentdem", "latentdem_ext", "kernels"):
        (source / package).mkdir(parents=True)
        (source / package / "__init__.py").touch()
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)

    def built(**environment: str) -> list[str]:
        run = setup(
            "build_ext", "--inplace", where=source, **tools, CUDACXX=str(tmp_path / "nvcc"), **environment
        )
        assert run.returncode == 0, run.stderr
        return sorted(path.name for path in (source / "latentdem_ext").iterdir() if path.suffix != ".py")

    program(tmp_path / "nvcc")
    assert built() == ["_build.json", f"_cpu{SUFFIX}", f"_cuda{SUFFIX}"]
    assert record(source) == ""
    assert built(LATENTDEM_CUDA="OFF") == ["_build.json", f"_cpu{SUFFIX}"]
    assert record(source) == "LATENTDEM_CUDA=OFF was set"
    assert built() == ["_build.json", f"_cpu{SUFFIX}", f"_cuda{SUFFIX}"]
    assert built(LATENTDEM_NATIVE="OFF") == ["_build.json"]
    assert record(source) == "LATENTDEM_NATIVE=OFF was set"


def test_cuda_module_is_built_for_the_architectures_asked_for(tmp_path, tools):
    nvcc = program(tmp_path / "nvcc", f'echo "$@" > {tmp_path / "flags"}')
    assert run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA_ARCHS="100,90").returncode == 0
    assert "arch=compute_90,code=sm_90" in (tmp_path / "flags").read_text()
    arguments = (tmp_path / LOG).read_text()
    assert f"-DLATENTDEM_CUDA=ON -DCMAKE_CUDA_COMPILER={nvcc} -DLATENTDEM_CUDA_ARCHS=90;100" in arguments
    run = run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA_ARCHS="sm_90")
    assert "LATENTDEM_CUDA_ARCHS must be numbers like 80;90, not 'sm_90'" in run.stderr
    (tmp_path / LOG).unlink()
    assert run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA="OFF").returncode == 0
    assert "-DLATENTDEM_CUDA=OFF" in (tmp_path / LOG).read_text()


@pytest.mark.parametrize(("variable", "known"), [("NATIVE", "ON or OFF"), ("CUDA", "AUTO, ON or OFF")])
def test_build_refuses_an_unknown_setting(tmp_path, variable, known):
    run = run_setup(tmp_path, **{f"LATENTDEM_{variable}": "MAYBE"})
    assert run.returncode != 0
    assert f"LATENTDEM_{variable} must be {known}, not 'MAYBE'" in run.stderr


def metadata(folder: Path, **environment: str) -> str:
    run = setup("egg_info", f"--egg-base={folder}", **environment)
    assert run.returncode == 0, run.stderr
    return (folder / "latentdem.egg-info" / "PKG-INFO").read_text(encoding="utf-8")


def test_links_of_a_release_lead_to_the_files_of_its_tag(tmp_path):
    """A package index shows README.md without the repository."""
    repository = "https://host.example/owner/name"
    text = metadata(tmp_path, LATENTDEM_REPOSITORY=repository + "/")
    version = re.findall("^Version: (.+)", text, re.MULTILINE)[0]
    assert f"Project-URL: Repository, {repository}\n" in text
    assert f"Project-URL: Changelog, {repository}/blob/v{version}/CHANGELOG.md\n" in text
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) > 20
    for picture, link in links:
        host, path = re.fullmatch(r"(https://[^/]+/)([^#]*).*", link).groups()
        if host in repository:
            kind = "raw" if picture else "blob"
            prefix = f"owner/name/{kind}/v{version}/"
            assert path.startswith(prefix)
            assert (ROOT / path.removeprefix(prefix)).exists(), link


def test_metadata_without_an_address_of_the_repository_names_none(tmp_path):
    text = metadata(tmp_path)
    assert "Project-URL" not in text
    assert "](docs/README.md)" in text


def test_extra_three_d_of_a_clone_takes_the_weights_from_it(tmp_path):
    """No index need have them."""
    if (ROOT / "PKG-INFO").exists():
        pytest.skip("a source distribution names the package alone")
    folder = (ROOT / "python" / "weights_3d").as_uri()
    assert "-" not in Path(folder).name  # pip would take it for a name and a version, and keep the wheel
    assert f'Requires-Dist: latentdem-3d-weights @ {folder} ; extra == "three-d"' in metadata(tmp_path)


def test_extra_three_d_of_a_release_names_the_version_of_the_weights(tmp_path):
    text = metadata(tmp_path, LATENTDEM_REPOSITORY="https://host.example/owner/name")
    (version,) = re.findall('Requires-Dist: latentdem-3d-weights==(.+); extra == "three-d"', text)
    project = (ROOT / "python" / "weights_3d" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{version}"' in project
