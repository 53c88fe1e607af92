"""What the commands say: messages through `logging`, progress, tables, and streams that end no run."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0  # seconds between the lines of progress where there is no terminal
LEAST_SHARE = 0.1  # of the work, before which the time left is not shown: a search often ends early

log = logging.getLogger("latentdem.cli")
_library = logging.getLogger("latentdem")
_STYLES = {logging.ERROR: "red", logging.WARNING: "yellow"}


class _Live:
    """The console of the progress bar while there is one: other output has to go through it."""

    console: Console | None = None


class _Stream(io.TextIOWrapper):
    """A text stream that never ends a run.

    Characters that the encoding lacks are written as escapes, and a full disk or a closed pipe behind the
    stream is skipped: what matters is on disk by then, and the exit status tells the rest. `lost` remembers
    a full disk.
    """

    lost = False

    def __init__(self, stream: io.TextIOWrapper) -> None:
        line_buffering, encoding = stream.line_buffering, stream.encoding
        super().__init__(stream.detach(), encoding, "backslashreplace", line_buffering=line_buffering)

    def write(self, text: str) -> int:
        try:
            super().write(text)
        except OSError as error:
            self.lost |= not isinstance(error, BrokenPipeError)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.lost |= not isinstance(error, BrokenPipeError)


def protect_streams() -> None:
    """Makes sure that neither a console's encoding nor a full disk behind it ends a run in a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))


def output_is_lost() -> bool:
    """Whether the disk behind stdout had no room for some of what was printed."""
    sys.stdout.flush()
    return isinstance(sys.stdout, _Stream) and sys.stdout.lost


class _Handler(logging.Handler):
    """Prints messages to stderr, one line each, without time or name."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record), _STYLES.get(record.levelno))
        except Exception:
            self.handleError(record)


def set_verbosity(quiet: bool = False, verbose: int = 0) -> None:
    """Shows errors alone (`quiet`), also warnings, also notes (`verbose` = 1) or everything (2) on stderr."""
    if not any(isinstance(handler, _Handler) for handler in _library.handlers):
        _library.addHandler(_Handler())
    noted = logging.DEBUG if verbose > 1 else logging.INFO if verbose else logging.WARNING
    _library.setLevel(logging.ERROR if quiet else noted)


def is_quiet() -> bool:
    """Whether errors alone are shown."""
    return not _library.isEnabledFor(logging.WARNING)


def show_warnings_as_sentences() -> None:
    """Prints what `warnings.warn` says like the other messages, without file and line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _library.warning("%s", message)

    warnings.showwarning = show


def say(sentence: str, style: str | None = None) -> None:
    """Prints one sentence to stderr, never wrapped; above the progress bar where there is one."""
    from rich.text import Text

    (_Live.console or _console(stderr=True)).print(Text(sentence, style=style or ""), soft_wrap=True)


def say_error(sentence: str) -> None:
    """Prints one sentence in red to stderr; with -vv also where the error that is being handled comes from."""
    log.error("%s", sentence)
    if sys.exc_info()[0] is not None:
        log.debug("In full:", exc_info=True)


def print_text(text: str, *, to_stderr: bool = False) -> None:
    """Prints text as it is, unless only errors are shown."""
    if not is_quiet():
        _console(stderr=to_stderr).print(text, soft_wrap=True, markup=False, highlight=False)


def print_report(folder: Path) -> None:
    """Prints the table in the folder of an evaluation, and where it is."""
    print_text((folder / "table.md").read_text(encoding="utf-8"))
    print_text(f"Written to {folder}")


def print_table(rows: Sequence[tuple[str, str]], *, to_stderr: bool = False) -> None:
    """Prints names and values in two columns, each row on one line whatever the width of the terminal."""
    from rich.text import Text

    if is_quiet():
        return
    console, width = _console(stderr=to_stderr), max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True)


def print_grid(grid: Any) -> None:
    """Prints a table of rich, which is cut to the width of a terminal only where there is one."""
    console = _console()
    if not is_quiet():
        console.print(grid, width=None if console.is_terminal else 10_000)


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, text: str, done: float, total: float) -> None:
        """Shows `text` and the fraction `done` / `total`."""
        ...


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """A bar with the time left on stderr, removed at the end; plain lines where stderr is not a terminal."""
    console = _console(stderr=True)
    if is_quiet():
        yield lambda text, done, total: None
    elif not console.is_terminal or console.is_dumb_terminal:
        yield _Lines()
    else:
        with _bar(console) as advance:
            yield advance


@contextmanager
def _bar(console: Console) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),  # names may contain [brackets]
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    _Live.console = console
    try:
        with Progress(*columns, console=console, transient=True, speed_estimate_period=120) as progress:
            task = progress.add_task("starting", total=None)
            yield lambda text, done, total: progress.update(task, description=text, completed=done, total=total)
    finally:
        _Live.console = None


class _Lines:
    """Progress as a line every ten seconds: what is done, how much of it, time so far and time left."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started = self._last = now()

    def __call__(self, text: str, done: float, total: float) -> None:
        now = self._now()
        if now - self._last < LINE_EVERY:
            return
        self._last, elapsed = now, now - self._started
        share = done / total if total else 0.0
        left = f", {_clock(elapsed / share - elapsed)} left" if share >= LEAST_SHARE else ""
        say(f"{text}: {100 * share:.0f} % after {_clock(elapsed)}{left}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
