"""`latentdem serve`: a page in the browser that restores photographs on this machine."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._devices import own_device


def serve_command(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page on this machine; 0 takes a free one.")
    ] = 8427,
    open_page: Annotated[bool, typer.Option("--open", help="Also open the page in the browser.")] = False,
    prior: option.Prior = "embedded",
    steps: option.StepsOfEStep = None,
    device: option.Device = option.AUTO,
    precision: option.Precision = option.PrecisionName.auto,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Serve a page in the browser that restores photographs, to this machine alone.

    Prints the address to open. Photographs stay on this machine, and are forgotten at the end. One is restored
    at a time. Ctrl-C ends it.
    """
    console.set_verbosity(quiet, verbose)
    try:
        from ..web.server import open_port, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("anyio", "starlette", "uvicorn"):
            raise
        raise UserError(
            f"The page in the browser needs {error.name}; install with: pip install starlette uvicorn"
        ) from None
    from ..web.restorer import Restorer

    def announce(address: str) -> None:
        console.print_text(f"The page is at {address} (Ctrl-C ends it)")
        if open_page:
            webbrowser.open(address)

    listener = open_port(port)
    try:
        serve(Restorer.load(prior, own_device(device), precision.value, steps), listener, announce)
    except KeyboardInterrupt:  # what ends every server
        console.print_text("Ended.")
    finally:
        listener.close()
