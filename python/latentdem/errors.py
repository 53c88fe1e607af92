"""The one exception that stands for a mistake of the user."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake the user can put right: the message is one sentence that says what is wrong and what to do.

    The command line prints the message alone and exits with status 1; everything else is a defect and
    keeps its traceback.
    """
