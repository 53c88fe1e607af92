"""Build of the native modules by CMake, the extras, and the links of a release; the rest is in pyproject.toml.

Environment variables:
    LATENTDEM_NATIVE=OFF leaves all of them out: the operations then run on their PyTorch references.
    LATENTDEM_CUDA: AUTO (the default) builds the CUDA module where nvcc is found and works, ON insists, OFF
        leaves it out.
    LATENTDEM_CUDA_ARCHS: the GPU architectures it carries code for (default 80;90, as 8.6 and 8.9 run the code
        of 8.0); the newest of them gets PTX too.
    LATENTDEM_REPOSITORY: the address of the repository, such as https://github.com/OWNER/NAME, for a release. A
        package index shows README.md without the repository, so its links then lead there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

MODULES = ("latentdem_ext._cpu", "latentdem_ext._cuda")
RECORD = "_build.json"  # tells latentdem_ext that this folder was built, and why without CUDA
ROOT = Path(__file__).resolve().parent
NATIVE = os.environ.get("LATENTDEM_NATIVE", "ON").upper()
CUDA = os.environ.get("LATENTDEM_CUDA", "AUTO").upper()
CUDA_ARCHS = os.environ.get("LATENTDEM_CUDA_ARCHS", "80;90")
REPOSITORY = os.environ.get("LATENTDEM_REPOSITORY", "").rstrip("/")
WEIGHTS_3D = ROOT / "python" / "weights_3d"  # with a hyphen in it, pip would keep a built wheel and reuse it
HELP = "Set LATENTDEM_NATIVE=OFF to install without the native modules."
CUDA_HELP = "Set LATENTDEM_CUDA=OFF to install without the CUDA module."


EXTRAS = {
    # A package cannot know whether PyTorch is built for CUDA, whose builds for Linux bring Triton themselves.
    "cuda": ["triton>=3.2; sys_platform == 'linux' and platform_machine == 'x86_64'"],
    "diffusion": ["transformers>=4.57", "accelerate>=0.31"],
    "three-d": [
        "trimesh>=4",
        "opencv-python-headless>=4.8",
        "embreex>=2.17.7",
        "scipy>=1.11",
        "fast-simplification>=0.2",
        "xatlas>=0.0.9",
    ],
    "video": ["imageio>=2.28", "imageio-ffmpeg>=0.5"],
    "lpips": ["lpips>=0.1.4", "torchvision"],
    "deepinv": ["deepinv>=0.3"],
    "web": ["starlette>=0.40", "uvicorn>=0.30"],
    "ray": ["ray>=2.40", "pyarrow>=14", "fsspec>=2023.1"],
    "all": ["latentdem[diffusion,three-d,video,lpips,deepinv,web,ray]"],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"],
    "test": [
        "latentdem[cuda,diffusion,three-d,video,web]",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "pytest-benchmark>=4",
        "httpx2>=2",
        "pybind11>=2.13",
        "ruff>=0.9",
        "mypy>=1.13",
    ],
    "dev": ["latentdem[test]", "pytest-cov>=5", "pre-commit>=3.5", "playwright>=1.49"],
}


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt; the modules land where setuptools expects them."""

    def build_extensions(self) -> None:
        """Build every target of CMakeLists.txt, and record why CUDA was left out."""
        require_tools()
        nvcc, without_cuda = usable_nvcc()
        folder = Path(self.build_lib).resolve() / "latentdem_ext"
        folder.mkdir(parents=True, exist_ok=True)
        for module in MODULES:
            # A module that this build leaves out must not stay from an earlier one.
            Path(self.get_ext_fullpath(module)).unlink(missing_ok=True)

        failure = self._run_cmake(folder, nvcc)
        if failure and nvcc and CUDA == "AUTO":
            without_cuda, nvcc = f"the modules could not be {failure}", None
            failure = self._run_cmake(folder, None)
        if failure:
            how = f"{CUDA_HELP} {HELP}" if nvcc else HELP
            raise SystemExit(f"The native modules could not be {failure}. {how}")
        if without_cuda:
            print(f"latentdem is built without CUDA: {without_cuda}.")
        write_record(folder, native=True, without_cuda=without_cuda)

    def copy_extensions_to_source(self) -> None:
        """Put the modules and the record beside the sources, and remove those of an earlier build."""
        folder = Path(self.get_ext_fullpath(MODULES[0])).parent
        for module in MODULES:
            Path(self.get_ext_fullpath(module)).unlink(missing_ok=True)
        super().copy_extensions_to_source()
        if self.extensions:
            self.copy_file(str(Path(self.build_lib) / "latentdem_ext" / RECORD), str(folder / RECORD))
        else:
            write_record(folder, native=False, without_cuda="LATENTDEM_NATIVE=OFF was set")

    def _run_cmake(self, folder: Path, nvcc: str | None) -> str:
        """Build into `folder`, with the CUDA module where there is an nvcc; return what failed, or ""."""
        import pybind11

        work = Path(self.build_temp).resolve() / "cmake"
        configure = [
            "cmake",
            "--fresh",  # the last build's tools may have been in an isolated environment that is gone
            "-S", str(ROOT),
            "-B", str(work),
            "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DLATENTDEM_CUDA={'ON' if nvcc else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DLATENTDEM_CUDA_ARCHS={';'.join(cuda_archs())}"]
        for stage, command in (("configured", configure), ("compiled", ["cmake", "--build", str(work)])):
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            messages = []
            for line in run.stdout or ():
                print(line, end="", flush=True)
                messages.append(line)
            if run.wait():
                return f"{stage} ({first_error(messages, run.returncode)})"
        return ""


class PythonBuild(build_py):
    """An editable install without native modules removes those of an earlier one, and records that."""

    def run(self) -> None:
        """Copy the Python files."""
        super().run()
        if self.editable_mode and NATIVE == "OFF":
            modules = self.get_finalized_command("build_ext")
            modules.inplace = True
            modules.copy_extensions_to_source()


def write_record(folder: Path, native: bool, without_cuda: str) -> None:
    """Write whether `folder` has native modules, and why it has no CUDA module ("" if it has one)."""
    (folder / RECORD).write_text(json.dumps({"native": native, "without_cuda": without_cuda}) + "\n")


def require_tools() -> None:
    """Exit with the name of the first build tool that is missing."""
    tools = {"CMake (cmake)": ["cmake"], "Ninja (ninja)": ["ninja"]}
    tools["a C++ compiler (c++, g++, clang++ or cl, or the one CXX names)"] = (
        [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    )
    for name, programs in tools.items():
        if not any(map(shutil.which, programs)):
            raise SystemExit(f"The native module needs {name}, which was not found. {HELP}")


def cuda_archs() -> list[str]:
    """The architectures of LATENTDEM_CUDA_ARCHS, oldest first."""
    archs = re.split("[;, ]+", CUDA_ARCHS.strip())
    if not all(arch.isdigit() for arch in archs):
        raise SystemExit(f"LATENTDEM_CUDA_ARCHS must be numbers like 80;90, not {CUDA_ARCHS!r}.")
    return sorted(set(archs), key=int)


def usable_nvcc() -> tuple[str | None, str]:
    """The nvcc that builds the CUDA module, or None and why the module is left out."""
    if CUDA == "OFF":
        return None, "LATENTDEM_CUDA=OFF was set"
    nvcc = find_nvcc()
    if nvcc is None:
        problem = "nvcc, named by CUDACXX, on the PATH or below CUDA_PATH, was not found"
    else:
        problem = failure_of(nvcc)
    if not problem:
        return nvcc, ""
    if CUDA == "ON":
        raise SystemExit(f"LATENTDEM_CUDA=ON, but {problem}. {CUDA_HELP}")
    return None, problem


def find_nvcc() -> str | None:
    """The path of nvcc."""
    if os.environ.get("CUDACXX"):
        return shutil.which(os.environ["CUDACXX"])
    toolkits = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    below = [shutil.which("nvcc", path=str(Path(folder) / "bin")) for folder in toolkits if folder]
    return next(filter(None, [shutil.which("nvcc"), *below]), None)


def failure_of(nvcc: str) -> str:
    """Why `nvcc` does not compile a test program with the host's compiler ("" if it does)."""
    command = [nvcc, "-std=c++17", "-c", "test.cu", "-o", "test.o"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in cuda_archs()]
    if os.environ.get("CUDAHOSTCXX"):
        command += ["-ccbin", os.environ["CUDAHOSTCXX"]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test.cu").write_text("__global__ void kernel() {}\n")
        try:
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{nvcc} cannot be started ({error.strerror})"
    if run.returncode == 0:
        return ""
    error_line = first_error((run.stderr + run.stdout).splitlines(), run.returncode)
    return f"{nvcc} cannot compile a test program ({error_line})"


def first_error(messages: list[str], status: int) -> str:
    """The first line that names an error, with the one after it where it ends in a colon."""
    lines = [" ".join(line.split()) for line in messages if line.strip()]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE):
            return f"{line} {after}".strip() if line.endswith(":") else line
    return f"it ended with {status}"


def repository_urls() -> dict[str, str]:
    """The links beside the description in a package index; none without LATENTDEM_REPOSITORY."""
    if not REPOSITORY:
        return {}
    return {
        "Repository": REPOSITORY,
        "Documentation": f"{REPOSITORY}/blob/{release_tag()}/docs/README.md",
        "Changelog": f"{REPOSITORY}/blob/{release_tag()}/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    }


def index_readme() -> str:
    """README.md; with LATENTDEM_REPOSITORY, its pictures and links are those of the release there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if not REPOSITORY:
        return text
    text = re.sub(r"(!\[[^\]]*\]\()(?!\w+:)", rf"\1{REPOSITORY}/raw/{release_tag()}/", text)
    return re.sub(r"(\]\()(?!\w+:|#)", rf"\1{REPOSITORY}/blob/{release_tag()}/", text)


def release_tag() -> str:
    """The tag of this version."""
    return "v" + version_of(ROOT)


def weights_3d() -> str:
    """What the extra three-d asks for: the weights of this clone, or in a distribution those of an index.

    pip looks for a requirement without an address in an index, also where the folder is at hand. A source
    distribution has the file PKG-INFO.
    """
    if REPOSITORY or "sdist" in sys.argv or (ROOT / "PKG-INFO").exists():
        return f"latentdem-3d-weights=={version_of(WEIGHTS_3D)}"
    return f"latentdem-3d-weights @ {WEIGHTS_3D.as_uri()}"


def version_of(folder: Path) -> str:
    """The version in the pyproject.toml of `folder`."""
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall('^version = "([^"]+)"', text, re.MULTILINE)[0]


for variable, value, known in (("NATIVE", NATIVE, ("ON", "OFF")), ("CUDA", CUDA, ("AUTO", "ON", "OFF"))):
    if value not in known:
        raise SystemExit(f"LATENTDEM_{variable} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}.")

setup(
    long_description=index_readme(),
    long_description_content_type="text/markdown",
    project_urls=repository_urls(),
    extras_require={**EXTRAS, "three-d": [weights_3d(), *EXTRAS["three-d"]]},
    packages=[*find_packages("python"), *find_packages(include=["latentdem_ext*"]), "latentdem_kernels"],
    package_dir={
        "latentdem": "python/latentdem",
        "latentdem_ext": "latentdem_ext",
        "latentdem_kernels": "kernels",
    },
    ext_modules=[
        Extension(MODULES[0], sources=[]),
        Extension(MODULES[1], sources=[], optional=True),
    ]
    if NATIVE == "ON"
    else [],
    cmdclass={"build_ext": CMakeBuild, "build_py": PythonBuild},
)
