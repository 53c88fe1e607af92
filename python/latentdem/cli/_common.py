"""Errors, progress bars and common options of the subcommands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..errors import UserError

UNEXPLAINED = 3  # exit status if no kernel was found that explains the picture
INTERRUPTED = 130  # exit status that a shell reports for a command ended by Ctrl-C


class EStepName(str, Enum):
    """Names of the E-steps."""

    proximal = "proximal"
    posterior = "posterior"


class DeviceName(str, Enum):
    """Names of the devices."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class UnexplainedName(str, Enum):
    """What to write of a picture that no kernel explains."""

    input = "input"
    result = "result"


class SimulatedBoundaryName(str, Enum):
    """Names of the boundaries of a simulated blur."""

    circular = "circular"
    valid = "valid"


AUTO = "auto"


def parse_kernel_size(text: str) -> int | str:
    """A kernel size as a number, or "auto"."""
    if text != AUTO and not text.isdecimal():
        raise typer.BadParameter(f"'{text}' is neither a number of pixels nor '{AUTO}'.")
    return text if text == AUTO else int(text)


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
Steps = Annotated[
    int | None,
    typer.Option(min=2, help="Diffusion steps per 1000 timesteps; the default depends on the E-step."),
]
NoiseSigma = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Standard deviation of the noise, in units of the image range [-1, 1].",
        show_default="estimated",
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(help="Write settings, versions, times and metrics to this file.", show_default=False),
]
Figure = Annotated[bool, typer.Option("--figure/--no-figure", help="Draw the figure of the run.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness; the same seed gives the same result.")]
Device = Annotated[DeviceName, typer.Option(help="'auto' takes CUDA where there is one.")]


class CommandGroup(typer.core.TyperGroup):
    """Turns a user error into one sentence and status 1, and Ctrl-C into one sentence and status 130."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            say_error(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            say_error("Interrupted; nothing was written.")
            raise typer.Exit(INTERRUPTED) from None


def say_error(sentence: str) -> None:
    """Prints one sentence in red to stderr, never wrapped."""
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, text: str, done: float, total: float) -> None:
        """Shows `text` and the fraction `done` / `total`."""
        ...


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """A bar with the time left on stderr, removed at the end; invisible where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=120,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("starting", total=None)

        def advance(text: str, done: float, total: float) -> None:
            progress.update(task, description=text, completed=done, total=total)

        yield advance


def output_path(out: str | None, default_name: str) -> Path:
    """Path of the result: the file `out`, or `default_name` in the folder `out` or in the current one.

    A name that ends with "/" is a folder, created where it does not exist.
    """
    from ..io.files import make_folder

    if out is None:
        return Path(default_name)
    if out.endswith("/"):
        make_folder(out)
    path = Path(out)
    return path / default_name if path.is_dir() else path


def check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Makes sure, before a long computation, that the outputs can be written and overwrite no input.

    Raises:
        UserError: an output cannot be written, or is an input.
    """
    from ..io.files import check_writable

    resolved = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in resolved:
            raise UserError(f"{path} is an input and would be overwritten; choose another name with -o.")
        check_writable(path)


def print_table(rows: list[tuple[str, str]]) -> None:
    """Prints names and values in two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    Console().print(table)
