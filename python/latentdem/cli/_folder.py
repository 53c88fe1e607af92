"""`latentdem deblur` of a folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from ..errors import UserError
from . import _common as common

if TYPE_CHECKING:
    from torch import Tensor

    from ..output.result import Result
    from ..restoration.settings import BoundaryChoice, Settings
    from ..solver.passes import Progress


def deblur_folder(
    folder: Path,
    out: str | None,
    settings: Settings,
    kernel: Tensor | None,
    prior: str,
    device: str,
    batch_size: int,
    figure: bool,
    unexplained: Literal["input", "result"],
) -> None:
    """Restores the images of `folder` that have no results yet.

    Args:
        folder: of blurred photographs.
        out: folder of the results; by default one in the current folder, named after `folder`.
        settings: what the user chose.
        kernel: the known kernel, or None.
        prior, device: as in `latentdem.deblur`.
        batch_size: images to restore at a time.
        figure: whether figures are drawn.
        unexplained: what to write of images that no kernel found explains.

    Raises:
        UserError: there are no images, the options cannot be used, or `out` holds results of others.
    """
    import latentdem

    from ..api.batch import Share, restore_folder
    from ..checks import resolve_device
    from ..io.files import keep_settings, make_folder
    from ..io.images import image_names
    from ..output.report import versions
    from ..priors import load_prior
    from ..solver.checkpoint import digest

    share = Share.of(os.environ)
    image_names(folder)
    target = Path(out) if out else Path(f"{folder.resolve().name}_deblurred")
    if target.resolve() == folder.resolve():
        raise UserError(f"The results cannot go into {folder} itself; choose another folder with -o.")
    torch_device = resolve_device(_own_device(device))
    loaded = load_prior(prior, torch_device)
    make_folder(target)
    identity = {
        "folder": str(folder.resolve()),
        "prior": prior,
        **settings.as_dict(kernel_known=kernel is not None),
        "kernel": None if kernel is None else digest(kernel),
        "unexplained": unexplained,
        "latentdem": versions()["latentdem"],
    }
    keep_settings(
        target / "settings.json", identity, "results", "choose another folder with -o, or delete this one"
    )

    def restore(images: Tensor, boundary: BoundaryChoice, progress: Progress, mask: Tensor | None) -> Result:
        chosen = vars(replace(settings, boundary=boundary))
        return latentdem.deblur(
            images,
            kernel=kernel,
            mask=mask,
            prior=loaded,
            device=str(torch_device),
            progress=progress,
            **chosen,
        )

    try:
        with common.progress_bar() as advance:

            def progress(done: float, total: int, names: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {names}", done, total)

            report = restore_folder(
                folder,
                target,
                restore,
                batch_size=batch_size,
                boundary=settings.boundary,
                figure=figure,
                unexplained=unexplained,
                share=share,
                progress=progress if share.index == 0 else None,
            )
    except KeyboardInterrupt:
        common.say_error(f"Interrupted; finished results are in {target}, and the same command continues.")
        raise typer.Exit(common.INTERRUPTED) from None
    for reason in report.failures.values():
        common.say_error(f"Skipped: {reason}")
    if report.unexplained:
        names = ", ".join(report.unexplained)
        if kernel is not None:
            sentence = f"Not explained by the kernel, the residual being far above the noise: {names}."
        else:
            written = {"input": "written as they were", "result": "probably wrong"}[unexplained]
            sentence = (
                f"Not explained by any kernel found and {written}: {names}; "
                "try another --kernel-size or --seed for these."
            )
        common.say_error(sentence)
    common.print_table(
        [
            ("written to", str(target)),
            ("restored", str(len(report.restored))),
            ("not explained", str(len(report.unexplained))),
            ("there before", str(len(report.found))),
            ("skipped", str(len(report.failures))),
        ]
    )
    # One process that fails makes torchrun end the others.
    if share.count == 1 and len(report.failures) == report.done:
        raise typer.Exit(1)


def _own_device(name: str) -> str:
    """The GPU of this process, where several share a machine."""
    import torch

    if "LOCAL_RANK" not in os.environ or name == "cpu" or not torch.cuda.is_available():
        return name
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
