"""Writes the inputs of an evaluation for programs that restore whole folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..io.files import atomic_path, keep_settings, make_folder
from ..io.images import image_names, write_image
from ..output.report import versions
from .cases import EvaluationSettings, make_case


def export_cases(
    folder: str | Path, out: str | Path, settings: EvaluationSettings, *, limit: int | None = None
) -> dict[str, str]:
    """Writes the inputs that `run_evaluation` gives its methods.

    `out` gets blurred/NAME.png (8 bits, clipped to [-1, 1]), sharp/NAME.png, kernels/NAME.npy (K x K, sum 1,
    for convolution) and settings.json.

    Args:
        folder: folder of sharp images.
        out: folder of the inputs, created where it does not exist.
        settings: see `EvaluationSettings`.
        limit: stop after this many images.

    Returns:
        By name the reasons why images were left out.

    Raises:
        UserError: no images, two of the same name apart from the suffix, or `out` holds other inputs or cannot
            be written.
    """
    folder, out = Path(folder), Path(out)
    names = image_names(folder)[:limit]
    stems = [Path(name).stem for name in names]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise UserError(f"Two images in {folder} are called '{twice}', and their results would be; rename one.")
    for part in ("blurred", "sharp", "kernels"):
        make_folder(out / part)
    identity = {"folder": str(folder.resolve()), **asdict(settings), "latentdem": versions()["latentdem"]}
    keep_settings(out / "settings.json", identity, "inputs", "choose another folder, or delete this one")
    failures = {}
    for index, (name, stem) in enumerate(zip(names, stems, strict=True)):
        try:
            case = make_case(folder / name, index, settings)
        except UserError as error:
            failures[name] = str(error)
            continue
        write_image(out / "blurred" / f"{stem}.png", case.blurred)
        write_image(out / "sharp" / f"{stem}.png", case.reference)
        with atomic_path(out / "kernels" / f"{stem}.npy") as temporary:
            np.save(temporary, case.kernel[0, 0].numpy())
    return failures
