"""The server behind the page, on this machine alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..errors import UserError
from .app import make_app
from .jobs import Desk
from .restorer import Restore

_ADDRESS = "127.0.0.1"


class _Server(uvicorn.Server):
    """Ends the streams of events when it has to stop; they would keep it waiting for ever."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.desk.close()
        super().handle_exit(sig, frame)


def open_port(port: int) -> socket.socket:
    """Listens at a port of this machine; 0 takes a free one.

    Raises:
        UserError: the port is taken or not allowed.
    """
    try:
        return socket.create_server((_ADDRESS, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"Port {port} cannot be used: {reason}; choose another with --port.") from error


def serve(restore: Restore, listener: socket.socket, announce: Callable[[str], object]) -> None:
    """Serves the page until the process is interrupted.

    Args:
        restore: the restoration.
        listener: see `open_port`; closed at the end.
        announce: called with the address of the page once it can be opened.
    """
    desk = Desk(restore)
    config = uvicorn.Config(make_app(desk), log_level="warning", access_log=False, lifespan="off")
    announce(f"http://{_ADDRESS}:{listener.getsockname()[1]}/")
    try:
        _Server(config, desk).run(sockets=[listener])
    finally:
        desk.close()
        desk.clear()
        listener.close()
