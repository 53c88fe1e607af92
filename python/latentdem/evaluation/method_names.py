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

_SPECIAL = re.compile(r"\s*(?:(?P<name>[\w .+-]+)=)?(?P<kind>published|command):(?P<rest>.*)", re.DOTALL)


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


def parse_methods(
    values: Sequence[str], *, non_blind: bool = False, time_limit: float = TIME_LIMIT
) -> tuple[list[str], tuple[NamedMethod, ...]]:
    """Names of methods of a table, and the methods of other people.

    Args:
        values: each a list of methods separated by commas: a name, [NAME=]published:FOLDER, or
            [NAME=]command:PROGRAM, which reaches to the end of the value because programs contain commas.
        non_blind: whether published results were made with the true kernels.
        time_limit: seconds for a program and one input.

    Raises:
        UserError: a folder is missing, or a command has a wrong placeholder.
    """
    names: list[str] = []
    others: list[NamedMethod] = []
    for value in values:
        rest = value
        while rest.strip():
            special = _SPECIAL.match(rest)
            if special is None or special["kind"] == "published":
                part, _, rest = rest.partition(",")
            else:
                part, rest = rest, ""
            if special is None:
                names.append(part.strip())
            else:
                others.append(external_method(part, non_blind=non_blind, time_limit=time_limit))
    return names, tuple(others)


def external_method(spec: str, *, non_blind: bool = False, time_limit: float = TIME_LIMIT) -> NamedMethod:
    """The method of one [NAME=]published:FOLDER or [NAME=]command:PROGRAM.

    Raises:
        UserError: as `parse_methods`.
    """
    special = _SPECIAL.fullmatch(spec)
    if special is None:
        raise UserError(f"'{spec}' is neither published:FOLDER nor command:PROGRAM.")
    text = special["rest"].strip()
    if special["kind"] == "published":
        folder = Path(text).expanduser()
        if not text or not folder.is_dir():
            raise UserError(f"There is no folder '{text}' of published results; check the path.")
        name = (special["name"] or folder.resolve().name).strip()
        return NamedMethod(name, Published(folder), non_blind)
    program = Program(Command(text, time_limit))
    program.check()
    name = (special["name"] or _program_name(text)).strip()
    return NamedMethod(name, program, program.non_blind)


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


def _program_name(command: str) -> str:
    """A name for a command: that of its script, or of its first word."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    paths = [Path(word) for word in words]
    scripts = [path for path in paths if path.suffix in (".py", ".sh")]
    return re.sub(r"[^\w .+-]", "_", (scripts or paths)[0].stem)
