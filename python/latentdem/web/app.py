"""The pages of the server: the page itself, uploads, events, and files to download."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import UserError
from .choices import Choices
from .jobs import MAX_UPLOAD, Busy, Desk, Job

HOSTS = ["127.0.0.1", "localhost"]  # names that a request may call this server by
_STATIC = Path(__file__).parent / "static"
_LOOK_FOR_NEWS, _HEARTBEAT = 0.2, 10.0  # seconds
_DOWNLOADS = ("result", "kernel_array", "kernel_picture", "report", "uncertainty_array")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class _Guard:
    """Lets only the page itself change anything, and says so to the browser with every answer.

    A page from elsewhere that is open in the same browser can send requests here, too. Browsers say in the
    header Origin where a request that changes something comes from.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self.app
        if origin is not None and origin != f"{scope['scheme']}://{headers.get('host')}":
            app = _message("Requests from other pages are refused.", 403)
        await app(scope, receive, with_headers)


def make_app(desk: Desk) -> Starlette:
    """The application around a desk."""

    async def page(request: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def state(request: Request) -> Response:
        return JSONResponse(desk.state())

    async def events(request: Request) -> Response:
        return StreamingResponse(_news(desk), media_type="text/event-stream")

    async def start(request: Request) -> Response:
        choices = Choices.of(request.query_params)
        data = await _body(request)
        job = await run_in_threadpool(desk.start, data, request.query_params.get("name", ""), choices)
        return JSONResponse({"id": job.id}, 202)

    async def cancel(request: Request) -> Response:
        job = _job(desk, request)
        if job.status != "running":
            raise HTTPException(409, "This photograph is not being restored any more.")
        job.cancel()
        return JSONResponse({"id": job.id}, 202)

    async def photograph(request: Request) -> Response:
        return Response(_job(desk, request).data, media_type="application/octet-stream")

    async def file(request: Request) -> Response:
        job, kind = _job(desk, request), request.path_params["kind"]
        if kind not in job.files:
            raise HTTPException(404, "There is no such file, or not yet.")
        name = job.files[kind]
        return FileResponse(job.folder / name, filename=name if kind in _DOWNLOADS else None)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/state", state),
            Route("/events", events),
            Route("/jobs", start, methods=["POST"]),
            Route("/jobs/{id}/cancel", cancel, methods=["POST"]),
            Route("/jobs/{id}/photograph", photograph),
            Route("/jobs/{id}/{kind}", file),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(_Guard)],
        exception_handlers={HTTPException: _refuse, Busy: _refuse_busy, UserError: _refuse_input},
    )


async def _news(desk: Desk) -> AsyncIterator[str]:
    """The state of the desk whenever it is another, and a sign of life in between."""
    seen, silent = None, 0.0
    while not desk.closed:
        state = desk.state()
        silent += _LOOK_FOR_NEWS
        if state != seen:
            yield f"data: {json.dumps(state)}\n\n"
            seen, silent = state, 0.0
        elif silent > _HEARTBEAT:
            yield ": nothing new\n\n"
            silent = 0.0
        await anyio.sleep(_LOOK_FOR_NEWS)


async def _body(request: Request) -> bytes:
    """The body of a request, given up as soon as it is too long."""
    too_long = HTTPException(413, f"The file is larger than {MAX_UPLOAD // 2**20} MB; give a smaller one.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_UPLOAD:
        raise too_long
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_UPLOAD:
                raise too_long
    except ClientDisconnect:
        raise HTTPException(400, "The upload was broken off.") from None
    return bytes(data)


def _job(desk: Desk, request: Request) -> Job:
    job = desk.job
    if job is None or job.id != request.path_params["id"]:
        raise HTTPException(404, "This photograph is not here any more; another one took its place.")
    return job


def _message(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"message": sentence}, status)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _message(error.detail, error.status_code)


async def _refuse_busy(request: Request, error: Exception) -> Response:
    return _message(str(error), 409)


async def _refuse_input(request: Request, error: Exception) -> Response:
    return _message(str(error), 400)
