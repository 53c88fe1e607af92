"""Files that a command writes: their names, and what to do where they exist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..io.remote import address_of, existing


@dataclass(frozen=True)
class Existing:
    """What to do where a result exists already: refuse the run by default."""

    overwrite: bool = False
    skip: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.skip:
            raise UserError("--overwrite and --skip-existing exclude each other; give one of them.")

    @property
    def given(self) -> bool:
        """Whether the user said what to do."""
        return self.overwrite or self.skip

    def check(self, paths: Sequence[Path]) -> None:
        """Refuses a run that would replace files without having been told to; devices are never replaced.

        Raises:
            UserError: one of the paths exists.
        """
        from ..io.files import is_device

        if self.given or not (there := {path for path in existing(paths) if not is_device(path)}):
            return
        if len(paths) == 1:
            raise UserError(f"{paths[0]} exists already; add --overwrite to replace it, or choose another -o.")
        raise UserError(
            f"{len(there)} of the {len(paths)} files to write exist already, such as {min(there)}; add "
            "--overwrite to replace them."
        )


def output_path(out: str, default_name: str) -> Path:
    """The file `out`, or `default_name` in the folder `out`, which is created if it ends with "/"."""
    from ..io.files import make_folder

    if out.endswith(("/", os.sep)):
        make_folder(out)
    path = Path(out)
    return path / default_name if path.is_dir() else path


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], rule: Existing) -> None:
    """Makes sure, before a long computation, that the outputs can be written and replace nothing by mistake.

    Raises:
        UserError: an output cannot be written, is an input, or exists.
    """
    from ..io.files import check_writable

    resolved = {path.resolve() for path in inputs}
    writable: set[Path] = set()
    for path in outputs:
        if path.resolve() in resolved:
            raise UserError(f"{path} is an input and would be overwritten; choose another name with -o.")
        if address_of(path) is None and (path.parent not in writable or path.is_dir()):
            check_writable(path)
            writable.add(path.parent)
    rule.check(outputs)
