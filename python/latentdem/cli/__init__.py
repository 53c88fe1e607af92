"""The command `latentdem`: one module per subcommand, heavy imports only once a command runs."""

from __future__ import annotations

import os
import re
import warnings
from typing import Annotated, Any

import typer

from ..errors import UserError
from . import _console as console
from ._status import FAILED, INTERRUPTED
from .blur import blur_command
from .burst import burst_command
from .deblur import deblur_command
from .evaluate import evaluate_command
from .evaluate_3d import evaluate_3d_command
from .info import info_command
from .restore import EPILOG, restore_command
from .serve import serve_command
from .views import views_command


class CommandGroup(typer.core.TyperGroup):
    """Turns errors of the user and of the file system into one sentence and status 1, and Ctrl-C into 130."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the subcommand."""
        console.set_verbosity()
        try:
            return super().invoke(ctx)
        except UserError as error:
            console.say_error(str(error))
            raise typer.Exit(FAILED) from None
        except OSError as error:
            if error.filename is None:
                raise
            console.say_error(f"Cannot use {error.filename}: {(error.strerror or str(error)).lower()}.")
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            console.say_error("Interrupted; nothing was written.")
            raise typer.Exit(INTERRUPTED) from None


class Command(typer.core.TyperCommand):
    """Writes the arguments in the usage as most programs do: IMAGE..., without Typer's braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        pieces = super().collect_usage_pieces(ctx)
        return [re.sub(r"^\[\[(\w+)\]\]|^\{(\w+)[.]*\}", _bare, piece) for piece in pieces]


def _bare(name: re.Match[str]) -> str:
    optional, needed = name.groups()
    return needed if optional is None else f"[{optional}]"


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: latentdem deblur photo.jpg",
)
for name, command, summary, example in (
    (
        "deblur",
        deblur_command,
        "Restore blurred photographs and find their kernels.",
        "latentdem deblur photo.jpg --kernel-size 48 -o sharp.jpg",
    ),
    (
        "burst",
        burst_command,
        "Restore one photograph from several of the same scene.",
        "latentdem burst scene_1.jpg scene_2.jpg scene_3.jpg -o sharp.jpg",
    ),
    (
        "restore",
        restore_command,
        "Restore photographs that any operator measured.",
        "latentdem restore photo.jpg --operator disk",
    ),
    (
        "blur",
        blur_command,
        "Make a test case: a blurred image with noise.",
        "latentdem blur sharp.png -o blurred.png --kernel-size 33 --intensity 0.3",
    ),
    (
        "evaluate",
        evaluate_command,
        "Measure the restoration of the images of a folder.",
        "latentdem evaluate photos/ --kernel-size 33 --size 128 --limit 8",
    ),
    (
        "views",
        views_command,
        "Show an object in a few pictures from all sides.",
        "latentdem views front.png back.png -o object/ --mesh object/object.glb",
    ),
    (
        "evaluate-3d",
        evaluate_3d_command,
        "Measure poses, new views and meshes.",
        "latentdem evaluate-3d -o results/ --objects 4 --methods one,two",
    ),
    ("serve", serve_command, "Serve a page in the browser, to this machine alone.", "latentdem serve --open"),
    ("info", info_command, "Print versions, devices, backends and weights.", "latentdem info"),
):
    notes = f"\n\n{EPILOG}" if name == "restore" else ""
    app.command(name, cls=Command, short_help=summary, epilog=f"Example: {example}{notes}")(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"latentdem {version('latentdem')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Restore a blurred photograph, and the blur kernel with it, by a latent diffusion prior."""
    warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")


def main() -> None:
    """Entry point of the command line."""
    # The libraries that load checkpoints would mix their own progress bars and advice with our output.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Threads that wait by spinning take the cores from each other where other programs run.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.protect_streams()
    console.show_warnings_as_sentences()
    app(prog_name="latentdem")
