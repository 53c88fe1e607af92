"""`latentdem evaluate`: tables that compare methods on simulated blur, and its inputs for other programs."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from . import _console as console
from ._status import finish

if TYPE_CHECKING:
    from ..evaluation import EvaluationSettings
    from ..evaluation.protocols import Protocol


class ProtocolName(str, Enum):
    """Tables of the paper, and evaluations on real pictures."""

    table1 = "paper-table1"
    table2 = "paper-table2"
    table6 = "paper-table6"
    ablations = "ablations"
    levin = "levin"
    koehler = "koehler"
    lai = "lai"
    photographs = "photographs"

    @property
    def real(self) -> bool:
        """Whether its pictures are blurred already."""
        return self in (self.levin, self.koehler, self.lai, self.photographs)


def export_inputs(
    folder: Path, target: Path, protocol: ProtocolName | None, settings: EvaluationSettings, limit: int | None
) -> None:
    """Writes the inputs of an evaluation to `target`.

    Raises:
        UserError: the pictures of the protocol are inputs already, or as `export_cases`.
    """
    from ..evaluation.export import export_cases

    if protocol is not None and protocol.real:
        raise UserError(f"The pictures of --protocol {protocol.value} are inputs already; leave out --export.")
    settings, limit = as_the_table(protocol, settings, limit)
    for reason in export_cases(folder, target, settings, limit=limit).values():
        console.say_error(f"Skipped: {reason}")
    console.print_text(f"Written to {target}")


def table_of(protocol: ProtocolName | None, iterations: int | None, settings: EvaluationSettings) -> Protocol:
    """The table of the paper, or that of any settings.

    Raises:
        UserError: the methods of the table do not support the settings.
    """
    from ..evaluation.protocols import PROTOCOLS, check_settings, comparison

    if protocol is None:
        return comparison(non_blind=settings.non_blind)
    check_settings(settings)
    table = PROTOCOLS[protocol.value]
    return table if iterations is None else table.with_iterations(iterations)


def as_the_table(
    protocol: ProtocolName | None, settings: EvaluationSettings, limit: int | None
) -> tuple[EvaluationSettings, int | None]:
    """Settings and number of images with the defaults of the paper's tables, where it is one."""
    from ..evaluation.protocols import IMAGES, PAPER_SETTINGS

    if protocol is None:
        return settings, limit
    return replace(settings, size=settings.size or PAPER_SETTINGS.size), limit or IMAGES


def run_table(
    folder: Path,
    target: Path,
    table: Protocol,
    methods: list[str],
    time_limit: float,
    settings: EvaluationSettings,
    limit: int | None,
    running: dict[str, Any],
) -> None:
    """Runs methods of a table and prints it.

    Args:
        folder: folder of sharp images.
        target: folder of the results.
        table: the table.
        methods, time_limit: as in `parse_methods`; without methods all of the table but those on request.
        settings, limit: as in `run_protocol`.
        running: batch, device and progress of `run_protocol`.

    Raises:
        UserError: as `parse_methods` and `run_protocol`.
    """
    from ..evaluation.method_names import parse_methods
    from ..evaluation.tables import run_protocol

    names, others = parse_methods(methods, non_blind=settings.non_blind, time_limit=time_limit)
    wanted = [*names, *(other.name for other in others)]
    table = table.with_methods(others)
    rows = run_protocol(folder, target, table, table.pick(wanted), settings, limit=limit, **running)
    if not any(row.evaluation.rows for row in rows):
        finish(dict.fromkeys(text for row in rows for text in row.evaluation.failures.values()), False)
    console.print_report(target)
