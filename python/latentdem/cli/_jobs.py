"""Which photographs a command restores, and where each result goes."""

from __future__ import annotations

import glob
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import UserError
from ..io.remote import address_of, list_address
from ._console import log

STANDARD = Path("-")  # standard input or output
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Job:
    """One photograph to restore.

    Attributes:
        source: the file to read.
        name: what messages call it.
        target: file of the result; None for standard output.
        key: name of its extras, different for every photograph of a run.
    """

    source: Path
    name: str
    target: Path | None
    key: str


@dataclass(frozen=True)
class _Input:
    """A photograph as it was given: itself, or as one of a folder."""

    path: Path
    folder: Path | None = None


@contextmanager
def standard_input(paths: Sequence[Path]) -> Iterator[Path | None]:
    """A temporary file of what standard input holds, where it is among the `paths`; else None.

    Raises:
        UserError: it is given with other files, is a terminal, or holds nothing.
    """
    if STANDARD not in paths:
        yield None
        return
    if len(paths) > 1:
        raise UserError("Standard input is one photograph; give '-' alone.")
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("Standard input is no file or program; send a photograph to it, or name one.")
    with TemporaryDirectory(prefix="latentdem-") as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        if not path.stat().st_size:
            raise UserError("Standard input is empty; send a photograph to it.")
        yield path


def plan(
    paths: Sequence[Path], out: str | None, ending: str, suffix: str | None, stdin: Path | None = None
) -> list[Job]:
    """The photographs that `paths` name, and their results.

    The result of NAME.EXT is NAME + `ending` + .EXT, beside it; those of a folder go to a folder of their own
    beside that one. Where two photographs would have one result, their whole names become parts of its name.

    Args:
        paths: files, folders and addresses (see `io.remote`), or standard input.
        out: file or folder of the results, "-" for standard output, None for the default.
        ending: of the names of results, such as "_deblurred".
        suffix: of the results, None for that of each photograph.
        stdin: file with the contents of standard input, where that is the photograph.

    Raises:
        UserError: nothing is found, or `out` does not fit.
    """
    from ..io.files import make_folder
    from ..io.images import check_output

    if stdin is not None:
        target = _single_target(out or "-", f"stdin{ending}{suffix or suffix_of(stdin)}", suffix)
        return [Job(stdin, "standard input", target, target.stem if target else f"stdin{ending}")]
    inputs = list(_found(paths))
    remote = address_of(out or ".") is not None or any(address_of(path) is not None for path in paths)
    if remote and out is None:
        raise UserError("Give the folder of the results of photographs at an address, with -o.")
    one = len(inputs) == 1 and inputs[0].folder is None
    if one and out is not None and not remote:
        path = inputs[0].path
        target = _single_target(out, f"{path.stem}{ending}{suffix or suffix_of(path)}", suffix)
        return [Job(path, str(path), target, target.stem if target else f"{path.stem}{ending}")]
    folder = None if out is None else Path(out)
    if folder == STANDARD:
        raise UserError("Standard output takes a single photograph; give a folder with -o.")
    if folder is not None and address_of(folder) is None and not folder.is_dir():
        if folder.exists() or (not str(out).endswith(("/", os.sep)) and _format(folder) is not None):
            raise UserError(f"{out} names one file, for {len(inputs)} photographs; give a folder with -o.")
        make_folder(folder)
    targets = [
        (folder or _beside(each, ending)) / f"{each.path.stem}{ending}{suffix or suffix_of(each.path)}"
        for each in inputs
    ]
    taken = Counter(map(_identity, targets))
    for i, each in enumerate(inputs):
        check_output(targets[i])
        if taken[_identity(targets[i])] > 1:
            # The whole name, so that no other file has this result, in this run or in a later one.
            targets[i] = targets[i].with_name(f"{each.path.name}{ending}{targets[i].suffix}")
    _check_distinct(inputs, targets)
    stems = Counter(target.stem.lower() for target in targets)
    keys = [target.stem if stems[target.stem.lower()] == 1 else target.name for target in targets]
    named = zip(inputs, targets, keys, strict=True)
    jobs = [Job(each.path, address_of(each.path) or str(each.path), target, key) for each, target, key in named]
    return _without_results(jobs, ending)


def suffix_of(path: Path) -> str:
    """Suffix of a result in the format of a file: its own, or the usual one where that is wrong or missing."""
    from PIL import Image

    from ..io.codecs import WRITABLE, family_of

    own = path.suffix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                family = "JPEG" if image.format == "MPO" else str(image.format)
        except Exception:  # a file that only another decoder knows, or that will be refused when it is read
            family = family_of(path) or ""
    suffixes = WRITABLE.get(family, (".png",))
    return own if own.lower() in suffixes else suffixes[0]


def check_readable(images: Sequence[Path]) -> None:
    """Reads a single photograph before PyTorch is imported, so that a damaged one is reported at once.

    Raises:
        UserError: it cannot be read.
    """
    from ..io.images import decode_file

    if len(images) == 1 and images[0].is_file():
        decode_file(images[0])


def expand(paths: Sequence[Path]) -> list[Path]:
    """The paths, where those that do not exist and are patterns are replaced by what they match, sorted.

    A wrong name is found here, before anything is loaded.

    Raises:
        UserError: a pattern matches nothing, or a path does not exist.
    """
    expanded: list[Path] = []
    for path in paths:
        if path.exists() or path == STANDARD or address_of(path) is not None:
            expanded.append(path)
            continue
        if not glob.has_magic(str(path)):
            raise UserError(f"{path} does not exist; check the path.")
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"No file matches '{path}'; check the pattern.")
        expanded += map(Path, matches)
    return expanded


def _found(paths: Sequence[Path]) -> Iterator[_Input]:
    """Every photograph once, those of folders sorted by name."""
    from ..io.images import SUFFIXES, image_names

    seen = set()
    for path in paths:
        inside = [_Input(path)]
        if (address := address_of(path)) is not None:
            files, is_folder = list_address(address)
            inside = [_Input(each, path if is_folder else None) for each in files]
            if is_folder:
                inside = [each for each in inside if each.path.suffix.lower() in SUFFIXES]
        elif path.is_dir():
            try:
                names = image_names(path)
                _say_what_is_left_out(path, set(names))
            except OSError as error:
                raise UserError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
            inside = [_Input(path / name, path) for name in names]
        for each in inside:
            if (resolved := each.path.resolve()) not in seen:
                seen.add(resolved)
                yield each


def _say_what_is_left_out(folder: Path, taken: set[str]) -> None:
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    left = [f"{name}/" if (folder / name).is_dir() else name for name in others if name not in taken]
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        log.warning("Left out of %s, not being photographs: %s%s.", folder, ", ".join(left[:_SHOWN]), more)


def _single_target(out: str, default_name: str, suffix: str | None) -> Path | None:
    """Target of one photograph: the file `out`, or `default_name` in the folder `out`; None for "-"."""
    from ..io.files import make_folder
    from ..io.images import check_output

    if out == "-":
        return None
    if out.endswith(("/", os.sep)):
        make_folder(out)
    path = Path(out)
    if path.is_dir():
        return path / default_name
    if not path.suffix and not path.exists():
        raise UserError(f"There is no folder {out}; add a / to make it, or a suffix such as .png for a file.")
    check_output(path)
    if suffix is not None and _format(path) != _format(Path(default_name)):
        raise UserError(f"{out} is not a {suffix[1:]} file; give -o or --format, or make them agree.")
    return path


def _format(path: Path) -> str | None:
    """Format that the name of a file stands for."""
    from ..io.codecs import family_of

    return family_of(path)


def _beside(each: _Input, ending: str) -> Path:
    """Folder of the result by default."""
    if each.folder is None:
        return each.path.parent
    parent = each.folder.parent if each.folder.name else each.folder.resolve().parent
    return parent / f"{each.folder.resolve().name}{ending}"


def _identity(path: Path) -> str:
    """What two paths of one file have in common; the file systems of Windows and macOS ignore case."""
    text = str(path.resolve())
    return text.lower() if sys.platform in ("win32", "darwin") else text


def _check_distinct(inputs: Sequence[_Input], targets: Sequence[Path]) -> None:
    """Refuses two photographs with one result.

    Raises:
        UserError: names them.
    """
    first: dict[str, Path] = {}
    for each, target in zip(inputs, targets, strict=True):
        other = first.setdefault(_identity(target), each.path)
        if other != each.path:
            raise UserError(
                f"{other} and {each.path} would both be restored to {target}; restore them with two commands "
                "that differ in -o."
            )


def _without_results(jobs: list[Job], ending: str) -> list[Job]:
    """The jobs but for results of other photographs: under the names of this run, or beside the photographs."""
    results: dict[Path, Job] = {}
    for job in jobs:
        if job.target is not None:
            beside = job.source.with_name(f"{job.source.stem}{ending}{job.target.suffix}")
            results |= {path.resolve(): job for path in (job.target, beside)}
    kept = []
    for job in jobs:
        origin = results.get(job.source.resolve())
        if origin is None:
            kept.append(job)
        else:
            log.warning("Left out %s, the result of %s.", job.name, origin.name)
    return kept
