"""The methods that a user asks for: names of the rows of a table, published results, and programs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .external import External, Program, Published
from .programs import TIME_LIMIT, Command

ALL = "all"  # the name for all methods of a table that run without being named
_SPECIAL = re.compile(r"\s*(?:(?P<name>\w[\w .+-]*)=)?(?P<kind>published|command):(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class NamedMethod:
    """A method of other people.

    Attributes:
        name: name of its row and of the folder of its results.
        method: what is run or read.
        non_blind: whether it knows the true kernel.
    """

    name: str
    method: External
    non_blind: bool


@dataclass(frozen=True)
class Spec:
    """[NAME=]published:FOLDER or [NAME=]command:PROGRAM: its name, its kind and what follows the colon."""

    name: str
    kind: str
    text: str

    @property
    def folder(self) -> Path:
        """The folder of published results.

        Raises:
            UserError: there is no such folder.
        """
        folder = Path(self.text).expanduser()
        if not self.text or not folder.is_dir():
            raise UserError(f"There is no folder '{self.text}' of published results; check the path.")
        return folder


def split_methods(values: Sequence[str]) -> tuple[list[str], list[Spec]]:
    """Names of methods of a table, and specifications of methods of other people.

    Args:
        values: each a list of methods separated by commas: a name, [NAME=]published:FOLDER, or
            [NAME=]command:PROGRAM, which reaches to the end of the value because programs contain commas.
    """
    names: list[str] = []
    specs: list[Spec] = []
    for value in values:
        rest = value
        while rest.strip():
            special = _SPECIAL.match(rest)
            part, _, after = rest.partition(",")
            if special is None:
                names.append(part.strip())
            elif special["kind"] == "published":
                folder = part.partition("published:")[2].strip()
                name = special["name"] or Path(folder).expanduser().resolve().name
                specs.append(Spec(_row_name(name), "published", folder))
            else:
                command, after = special["rest"].strip(), ""
                specs.append(Spec(_row_name(special["name"] or _script(command)), "command", command))
            rest = after
    return names, specs


def parse_methods(
    values: Sequence[str], *, non_blind: bool = False, time_limit: float = TIME_LIMIT
) -> tuple[list[str], tuple[NamedMethod, ...]]:
    """Names of methods of a table, and the methods of other people.

    Args:
        values: see `split_methods`.
        non_blind: whether published results were made with the true kernels.
        time_limit: seconds for a program and one input.

    Raises:
        UserError: a folder is missing, or a command has a wrong placeholder.
    """
    names, specs = split_methods(values)
    others = []
    for spec in specs:
        if spec.kind == "published":
            others.append(NamedMethod(spec.name, Published(spec.folder), non_blind))
        else:
            program = Program(Command(spec.text, time_limit))
            program.check()
            others.append(NamedMethod(spec.name, program, program.non_blind))
    return names, tuple(others)


def check_names(names: Sequence[str]) -> None:
    """Raises a UserError where two methods of a table have the same name."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two methods are called '{name}'; name one of them, as in NAME=published:FOLDER.")


def earlier_methods(out: Path, known: Sequence[str]) -> tuple[NamedMethod, ...]:
    """Methods of other people whose results earlier calls have left in the folder `out` of a table.

    Args:
        out: folder with a folder per method.
        known: names that are not looked for.
    """
    found = []
    for path in sorted(out.glob("*/settings.json")):
        name = path.parent.name
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            spec, non_blind = str(settings["method"]), bool(settings["non_blind"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if name not in known and _SPECIAL.fullmatch(spec):
            kind, _, rest = spec.partition(":")
            method: External = Published(Path(rest)) if kind == "published" else Program(Command(rest))
            found.append(NamedMethod(name, method, non_blind))
    return tuple(found)


def _script(command: str) -> str:
    """Name of the script of a command, or else of its first word."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    paths = [Path(word) for word in words]
    scripts = [path for path in paths if path.suffix in (".py", ".sh")]
    return next((path.stem for path in (*scripts, *paths)), "")


def _row_name(text: str) -> str:
    """A name that can be that of a folder."""
    return re.sub(r"[^\w .+-]", "_", text).strip(" .") or "other"
