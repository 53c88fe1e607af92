"""Exit statuses of the commands; 0 is success, and 2 is for wrong options."""

from __future__ import annotations

from collections.abc import Collection

import typer

from ._console import say_error

FAILED = 1  # after an error, nothing being restored
UNEXPLAINED = 3  # no kernel was found that explains a photograph, or no pose that explains a picture
INCOMPLETE = 4  # a part of what was asked for could not be made
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C


def finish(failures: Collection[str], done: bool) -> None:
    """Says why files were skipped, and ends the command with the status for it.

    Args:
        failures: reasons.
        done: whether there are other files, without failures.
    """
    for reason in failures:
        say_error(f"Skipped: {reason}")
    if failures or not done:
        raise typer.Exit(INCOMPLETE if done else FAILED)
