"""The exception for user errors."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can correct; the message says in one sentence what is wrong and what to do.

    The command line prints the message alone and exits with status 1. Any other exception is a defect of the
    program and keeps its traceback.
    """
