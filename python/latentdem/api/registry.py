"""The operators that have a name: `latentdem restore --operator NAME[:PARAMETER=VALUE,...]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError


@dataclass(frozen=True)
class Value:
    """A value that can be given by name.

    Attributes:
        help: what it is.
        convert: from the text of the command line or a number; raises ValueError.
        default: where it is not given, for settings.
    """

    help: str
    convert: Callable[[Any], Any]
    default: Any = None


@dataclass(frozen=True)
class Entry:
    """An operator by name.

    Attributes:
        help: the formula in a few words.
        settings: what does not change, with defaults; one without a default must be given.
        unknowns: its parameters: restored with the image unless they are given, all of them.
    """

    help: str
    settings: dict[str, Value]
    unknowns: dict[str, Value]


def _checked(kind: Callable[[Any], Any], allowed: Callable[[Any], bool], takes: str) -> Callable[[Any], Any]:
    """Converts a text or number to a `kind` that is `allowed`, or raises ValueError with what it `takes`."""

    def convert(given: Any) -> Any:
        try:
            value = kind(given)
        except (TypeError, ValueError):
            raise ValueError(takes) from None
        if not allowed(value):
            raise ValueError(takes)
        return value

    return convert


_positive = _checked(float, lambda value: 0 < value < float("inf"), "a number above 0")
_share = _checked(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
_factor = _checked(int, lambda value: value in (2, 4, 8), "2, 4 or 8")
_shape = _checked(str, lambda value: value in ("strokes", "rectangle"), "strokes or rectangle")


def _whole(least: int) -> Callable[[str], Any]:
    return _checked(int, lambda value: value >= least, f"a whole number from {least}")


def _size(default: int) -> dict[str, Value]:
    return {"size": Value("K of the K x K kernel, 3 or more", _whole(3), default)}


_KERNEL = {"kernel": Value("file of the kernel", Path)}

OPERATORS = {
    "blur": Entry("one K x K kernel; the same as `latentdem deblur`", _size(64), _KERNEL),
    "gaussian": Entry(
        "separable Gaussian blur",
        _size(25),
        {
            "sigma_x": Value("standard deviation along rows in pixels", _positive),
            "sigma_y": Value("along columns", _positive),
        },
    ),
    "disk": Entry("lens out of focus", _size(25), {"radius": Value("of the disk in pixels", _positive)}),
    "saturation": Entry(
        "blur, then clipping: black and white pixels do not count",
        {**_size(64), "exposure": Value("brightest light of the scene in units of white", _positive, 1.0)},
        _KERNEL,
    ),
    "superresolution": Entry(
        "round Gaussian blur, then every second, fourth or eighth pixel",
        {"factor": Value("2, 4 or 8", _factor)},
        {"sigma": Value("standard deviation of the anti-aliasing in pixels of the result", _positive)},
    ),
    "denoise": Entry(
        "noise alone", {}, {"sigma": Value("standard deviation of the noise in units of [-1, 1]", _positive)}
    ),
    "inpaint": Entry(
        "pixels hidden behind one colour",
        {
            "colour": Value("grey level of what hides, from 0 (black) to 1 (white)", _share, 0.0),
            "shape": Value("strokes or rectangle", _shape, "strokes"),
        },
        {"mask": Value("picture that is white where IMAGE is seen and black where it is hidden", Path)},
    ),
    "varying": Entry(
        "blur that varies over the image: a grid of kernels, interpolated",
        {**_size(25), "grid": Value("kernels per side, 2 or more", _whole(2), 2)},
        {"kernels": Value("NumPy file (grid * grid, K, K)", Path)},
    ),
    "gamma": Entry("tone curve u^gamma of u in [0, 1]", {}, {"gamma": Value("the exponent", _positive)}),
    "response": Entry(
        "round Gaussian blur of light that a camera records as its gamma-th root",
        _size(25),
        {
            "sigma": Value("standard deviation in pixels", _positive),
            "gamma": Value("of the camera, about 2.2", _positive),
        },
    ),
}


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and values of NAME[:PARAMETER=VALUE,...], converted.

    Raises:
        UserError: an unknown name, parameter or value.
    """
    name, _, rest = text.partition(":")
    entry = entry_of(name)
    known = {**entry.settings, **entry.unknowns}
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, given = part.partition("=")
        if not equals or key not in known:
            raise UserError(f"The operator {name} has no parameter '{key}'; {_what_it_has(name)}.")
        values[key] = _converted(name, key, known[key], given)
    return name, values


def _converted(name: str, key: str, value: Value, given: Any) -> Any:
    """A value of a text, a number or an array of one number; arrays in place of files stay as they are."""
    if value.convert is Path and not isinstance(given, str):
        return given
    try:
        return value.convert(given.item() if hasattr(given, "item") else given)
    except (ValueError, RuntimeError) as error:  # RuntimeError: PyTorch, of more numbers than one
        takes = "one number" if hasattr(given, "item") else error
        raise UserError(f"The {key} of the operator {name} is {takes}, not {given!r}.") from None


def entry_of(name: str) -> Entry:
    """The operator of this name.

    Raises:
        UserError: there is none.
    """
    if name not in OPERATORS:
        raise UserError(f"There is no operator '{name}'; give one of {', '.join(OPERATORS)}.")
    return OPERATORS[name]


def completed(name: str, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings with their defaults, and the parameters that are known: all of them or none.

    Raises:
        UserError: an unknown name or value, a setting that must be given is not, or only a part of the
            parameters is.
    """
    entry = entry_of(name)
    for key in values:
        if key not in entry.settings and key not in entry.unknowns:
            raise UserError(f"The operator {name} has no parameter '{key}'; {_what_it_has(name)}.")
    named = {**entry.settings, **entry.unknowns}
    values = {key: _converted(name, key, named[key], given) for key, given in values.items()}
    settings = {key: values.get(key, each.default) for key, each in entry.settings.items()}
    for key, value in settings.items():
        if value is None:
            raise UserError(f"The operator {name} needs {key}; give {entry.settings[key].help}.")
    known = {key: values[key] for key in entry.unknowns if key in values}
    missing = [key for key in entry.unknowns if key not in known]
    if known and missing:
        raise UserError(
            f"The operator {name} is known with all of {', '.join(entry.unknowns)}; give {', '.join(missing)}, "
            "too, or none of them."
        )
    return settings, known


def _what_it_has(name: str) -> str:
    entry = OPERATORS[name]
    return f"it has {', '.join([*entry.settings, *entry.unknowns])}"


def listing() -> list[str]:
    """A line on every operator, for the command's help."""
    lines = []
    for name, entry in OPERATORS.items():
        settings = [
            f"{key} = {each.default if each.default is not None else each.help}"
            for key, each in entry.settings.items()
        ]
        lines.append(f"{name}: {entry.help}; unknown: {', '.join(entry.unknowns)}")
        if settings:
            lines[-1] += f"; settings: {', '.join(settings)}"
    return lines
