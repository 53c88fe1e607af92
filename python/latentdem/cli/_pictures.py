"""`latentdem evaluate` on pictures that a camera blurred."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from . import _console as console
from ._options import parse_size
from ._status import finish

if TYPE_CHECKING:
    from ..evaluation import EvaluationSettings
    from ..evaluation.pictures import PictureSettings

PUBLISHED = "published"
# Options about the simulated blur and the tables of the paper.
_SIMULATED = ("batch_size", "estimate_noise", "intensity", "iterations", "margin", "methods", "size")


def parse_kernel_size(text: str) -> int | str:
    """A kernel size as a number, or "published"."""
    return parse_size(text, PUBLISHED)


def picture_settings(
    protocol: str, settings: EvaluationSettings, kernel_size: int | str, given: Collection[str]
) -> PictureSettings:
    """Settings for real pictures, with the defaults of `latentdem.deblur` for what the user did not give.

    Args:
        protocol: its name.
        settings: with the values of the options.
        kernel_size: a number or "published".
        given: names of the parameters that the user gave.

    Raises:
        UserError: an option that has no meaning for real pictures was given.
    """
    from ..evaluation.pictures import PictureSettings
    from ..restoration.settings import Settings

    for name in _SIMULATED:
        if name in given:
            option = name.replace("_", "-")
            raise UserError(
                f"--{option} does not apply to the real pictures of --protocol {protocol}; leave it out."
            )
    published = kernel_size == PUBLISHED
    names = {"kernel_size", "noise_sigma", "e_step", "without", "steps", "seed", "boundary"} & set(given)
    chosen = {name: getattr(settings, name) for name in names if not (published and name == "kernel_size")}
    return PictureSettings(protocol, Settings(**chosen), settings.prior, settings.non_blind, published)


def evaluate_real(
    folder: Path,
    target: Path,
    settings: PictureSettings,
    cases: str | None,
    limit: int | None,
    device: str,
    progress: Any,
) -> None:
    """Evaluates real pictures and prints the tables.

    Args:
        folder: folder of a benchmark or of photographs.
        target: folder of the results.
        settings: see `PictureSettings`.
        cases: patterns of names, separated by commas.
        limit, device, progress: as in `evaluate_pictures`.

    Raises:
        UserError: as `evaluate_pictures`.
    """
    from ..evaluation.pictures import evaluate_pictures

    patterns = [case.strip() for case in cases.split(",")] if cases else []
    evaluation = evaluate_pictures(
        folder, target, settings, cases=patterns, limit=limit, device=device, progress=progress
    )
    if evaluation.rows:
        console.print_text((target / "table.md").read_text(encoding="utf-8"))
        console.print_text(f"Written to {target}")
    finish(evaluation.failures.values(), bool(evaluation.rows))
