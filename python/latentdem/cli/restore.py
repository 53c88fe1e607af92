"""`latentdem restore`: restore photographs that any operator has measured."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..api.registry import listing
from ..errors import UserError
from . import _console as console
from . import _options as option
from ._devices import own_device, shared_prior
from ._jobs import Job, check_readable, expand
from ._outputs import Existing
from ._run import run
from ._task import Outcome, Outputs, boundary_of

if TYPE_CHECKING:
    from ..io.images import ImageFile
    from ..output.result import Restored
    from ..restoration.settings import BoundaryChoice
    from ..solver.passes import Progress


def _operators(incomplete: str) -> list[str]:
    from ..api.registry import OPERATORS

    return [name for name in OPERATORS if name.startswith(incomplete)]


def restore_command(
    images: option.Pictures,
    operator: Annotated[
        str,
        typer.Option(
            metavar="NAME[:PARAMETER=VALUE,...]",
            help="What happened to the photographs, by name, with what is known of it; the names stand below.",
            show_default=False,
            autocompletion=_operators,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR|-",
            help="File or folder of the result; '-' is standard output.",
            show_default="IMAGE_restored beside IMAGE",
        ),
    ] = None,
    noise_sigma: option.NoiseSigma = None,
    prior: option.Prior = "embedded",
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Diffusion steps per 1000 timesteps.", show_default="depends on the operator"),
    ] = None,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    precision: option.Precision = option.PrecisionName.auto,
    cuda_graph: option.CudaGraph = True,
    compile: option.Compile = False,
    boundary: Annotated[
        option.BoundaryName,
        typer.Option(help="Of operators with one kernel, as of deblur; the others wrap around."),
    ] = option.BoundaryName.auto,
    output_format: option.Format = None,
    overwrite: option.Overwrite = False,
    skip_existing: option.SkipExisting = False,
    extras: option.Extras = None,
    json: option.Json = None,
    batch_size: option.BatchSize = 1,
    checkpoint: option.Checkpoint = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Restore photographs, and the unknown parameters of what happened to them.

    Writes the restored photograph, in the format of IMAGE; those of a folder go to DIR_restored. With --extras
    also a figure of the run as *_figure.png, parameters that are kernels or masks as *_NAME.npy, and a report
    as *_report.json. A result that exists is never replaced unless told so. Under torchrun the processes share
    the photographs.

    Exit status: 0; 1 after an error; 2 for wrong options; 4 if some of several photographs could not be
    restored; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    images = expand(images)
    check_readable(images)
    from ..api.registry import completed, parse

    name, values = parse(operator)
    completed(name, values)
    if checkpoint is not None and (len(images) > 1 or images[0].is_dir()):
        raise UserError("--checkpoint belongs to one photograph; leave it out, or give one IMAGE.")
    inputs = [value for value in values.values() if isinstance(value, Path)]
    chosen = {
        **{"noise_sigma": noise_sigma, "steps": steps, "seed": seed, "boundary": boundary.value},
        **{"precision": precision.value, "cuda_graph": cuda_graph, "compile": compile},
    }
    task = _Restoration(operator, chosen, prior, device, inputs, checkpoint, batch_size)
    existing = Existing(overwrite, skip_existing)
    run(images, task, Outputs(out, output_format and output_format.suffix, existing, extras, json))


@dataclass
class _Restoration:
    """See `Task`."""

    operator: str
    chosen: dict[str, Any]
    prior: str
    device: str
    inputs: Sequence[Path]
    kept: Path | None
    batch_size: int
    ending: str = "_restored"
    _loaded: Any = field(default=None, init=False)

    def prepare(self, count: int) -> None:
        self.device = own_device(self.device)
        precision, compile = self.chosen["precision"], self.chosen["compile"]
        self._loaded = shared_prior(self.prior, self.device, precision, count, compile)

    def group(self, source: ImageFile) -> tuple[Hashable, BoundaryChoice]:
        return source.pixels.shape, boundary_of(source, self.chosen["boundary"], self.batch_size)

    def restore(
        self, sources: list[ImageFile], group: tuple[Hashable, BoundaryChoice], progress: Progress
    ) -> list[Outcome]:
        import torch

        import latentdem

        result = latentdem.restore(
            torch.cat([source.pixels for source in sources]),
            self.operator,
            prior=self._loaded,
            device=self.device,
            progress=progress,
            checkpoint=self.kept,
            **self.chosen | {"boundary": group[1]},
        )
        result.settings["prior"] = self.prior
        return [_outcome(result[i], source) for i, source in enumerate(sources)]

    def complaint(self, unexplained: Sequence[Job], several: bool) -> tuple[str, int]:
        raise AssertionError("every result of `restore` counts as explained")


def _outcome(result: Restored, source: ImageFile) -> Outcome:
    import numpy as np

    from ..output.figures import save_figure
    from ..output.report import build_restored_report

    extras: dict[str, Any] = {"_figure.png": lambda path: save_figure(result.plot(), path)}
    rows = []
    for name, value in result.parameters.items():
        if value[0].numel() > 1:
            extras[f"_{name}.npy"] = partial(np.save, arr=value[0].numpy())
        else:
            rows.append((name, f"{float(value):.4g}"))
    rows.append(("noise sigma", f"{float(result.noise_sigma[0]):.4f}"))
    rows.append(("residual", f"{float(result.residual[0]):.4f}"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    return Outcome(result.tensor, source, build_restored_report(result), rows, extras)


EPILOG = "Operators:\n\n" + "\n\n".join(listing())
