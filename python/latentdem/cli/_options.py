"""Options that several commands share, and their values."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

AUTO = "auto"


class EStepName(str, Enum):
    """Names of the E-steps."""

    proximal = "proximal"
    posterior = "posterior"


class BoundaryName(str, Enum):
    """What the blur did at the frame."""

    auto = "auto"
    circular = "circular"
    valid = "valid"


class SimulatedBoundaryName(str, Enum):
    """Names of the boundaries of a simulated blur."""

    circular = "circular"
    valid = "valid"


class UnexplainedName(str, Enum):
    """What to write of a picture that no kernel explains."""

    input = "input"
    result = "result"


class BlurName(str, Enum):
    """Whether the blur is the same everywhere."""

    uniform = "uniform"
    varying = "varying"


class QualityName(str, Enum):
    """How much time a restoration takes once the kernel is known."""

    auto = "auto"
    fast = "fast"
    balanced = "balanced"
    best = "best"


class EngineName(str, Enum):
    """What shares the photographs of a run among processes."""

    plain = "plain"
    ray = "ray"


class PrecisionName(str, Enum):
    """Data types that the networks of the prior compute in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class FormatName(str, Enum):
    """Formats that pictures are written in, by the suffix of their files."""

    png = "png"
    jpg = "jpg"
    tif = "tif"
    webp = "webp"
    bmp = "bmp"

    @property
    def suffix(self) -> str:
        """The suffix of a file name."""
        return f".{self.value}"


def parse_size(text: str, word: str) -> int | str:
    """A kernel size as a number, or `word`."""
    if text != word and not text.isdecimal():
        raise typer.BadParameter(f"'{text}' is neither a number of pixels nor '{word}'.")
    return text if text == word else int(text)


def parse_kernel_size(text: str) -> int | str:
    """A kernel size as a number, or "auto"."""
    return parse_size(text, AUTO)


def parse_device(text: str) -> str:
    """The name of a device: whether there is one is found out later, with PyTorch."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise typer.BadParameter(f"'{text}' is none of auto, cpu, cuda, cuda:0, cuda:1, ..., mps.")
    return text


def parse_noise(text: str) -> float:
    """The standard deviation of noise that a picture has."""
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a number.") from None
    if not 0 < value <= 1:
        raise typer.BadParameter(
            f"{text} is not above 0 and at most 1, in units of the image range [-1, 1]; without the option the "
            "noise is estimated."
        )
    return value


def parse_gamma(text: str) -> float | str:
    """The name of a tone curve, or its exponent; which there are is checked with the settings."""
    try:
        return float(text)
    except ValueError:
        return text


UnknownKernelSize = Annotated[
    Any,
    typer.Option(
        parser=parse_kernel_size,
        metavar=f"INTEGER|{AUTO}",
        help=f"Width K of the square blur kernel, in pixels; at least as wide as the blur. '{AUTO}' finds it.",
    ),
]
KernelSize = Annotated[
    int, typer.Option(help="Width K of the square blur kernel, in pixels; at least as wide as the blur.")
]
Prior = Annotated[
    str,
    typer.Option(
        help="'embedded'; 'sd15' for Stable Diffusion 1.5; a folder of a prior or of a diffusers checkpoint; a "
        ".ckpt or .safetensors file of Stable Diffusion; a .pt file of a pixel-space model; or OWNER/NAME "
        "of a checkpoint on the Hugging Face hub, already downloaded.",
        metavar="embedded|sd15|PATH|OWNER/NAME",
    ),
]
EStep = Annotated[
    EStepName,
    typer.Option(
        help="'proximal' is fast; 'posterior' is the paper's gradient through the networks, and slow."
    ),
]
StepsOfEStep = Annotated[
    int | None,
    typer.Option(min=2, help="Diffusion steps per 1000 timesteps.", show_default="depends on the E-step"),
]
NoiseSigma = Annotated[
    Any,
    typer.Option(
        parser=parse_noise,
        metavar="FLOAT",
        help="Standard deviation of the noise, in units of the image range [-1, 1]; above 0.",
        show_default="estimated",
    ),
]
Boundary = Annotated[
    BoundaryName,
    typer.Option(
        help="'valid' for photographs, 'circular' for blur that wraps around, 'auto' looks at the edges."
    ),
]
Gamma = Annotated[
    Any,
    typer.Option(
        parser=parse_gamma,
        metavar="FLOAT|srgb|auto",
        help="Tone curve between the light that was blurred and the values of the file: 'srgb', or an exponent "
        "such as 2.2; 1 if the values themselves were blurred; 'auto' tries 1 and 'srgb'.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness; the same seed gives the same result.")]
Device = Annotated[
    str,
    typer.Option(
        parser=parse_device,
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Where to compute: 'auto' takes CUDA if there is one; 'cuda:1' is the second GPU, 'mps' a Mac's.",
    ),
]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        help="What the networks of the prior compute in: 'auto' takes a half precision where it is fast."
    ),
]
CudaGraph = Annotated[
    bool,
    typer.Option(
        "--cuda-graph/--no-cuda-graph",
        help="On a CUDA device, capture the steps as CUDA graphs where they can be; the result is the same.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have PyTorch compile the networks of the prior, which takes up to minutes at the beginning.",
    ),
]
Pictures = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE",
        help="Photographs, folders of them, or patterns such as 'photos/*.jpg'; '-' reads standard input.",
        show_default=False,
        allow_dash=True,
    ),
]
Format = Annotated[
    FormatName | None, typer.Option("--format", help="Format of the result.", show_default="that of IMAGE")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist already.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out photographs whose results exist already.")
]
Extras = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Also write to this folder what was found, a figure of the run and a report of each photograph.",
        show_default=False,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write settings, versions, times and metrics to this file.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Say what is done; -vv also versions and tracebacks.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Photographs of one size to restore at a time; takes more memory.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Save the run of one photograph in this folder; if interrupted, the same command resumes it.",
        show_default=False,
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        help="'plain' restores in this process, or in those of torchrun; 'ray' in those of a Ray cluster."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster, such as 'auto' or 'HOST:6379'.",
        show_default="one of this machine, for this run",
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(min=1, help="Processor cores of each process of --engine ray.", show_default="1"),
]
Parquet = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Report of --engine ray: a folder of Parquet files with a row for each photograph.",
        show_default=False,
    ),
]
