"""The loop of every evaluation: load a case, restore it with others of its size, keep its row, resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from ..errors import UserError
from ..output.result import Result
from ..solver.passes import Progress
from .accuracy import Moment
from .store import EvaluationStore, ImageRowT

ImageProgress = Callable[[float, int, str], None]


class MethodError(UserError):
    """A method failed on its input: this input is listed as failed, and the evaluation goes on."""


class HasInput(Protocol):
    """A test case; its input is `blurred`, (1, C, H, W)."""

    @property
    def blurred(self) -> Tensor:
        """The input of the method."""
        ...


C = TypeVar("C", bound=HasInput)


@dataclass(frozen=True)
class Source(Generic[C]):
    """A test case that is loaded when its turn comes.

    Attributes:
        index: number of its row.
        name: its name in the table.
        load: loads it; raises `UserError` where it cannot be used.
    """

    index: int
    name: str
    load: Callable[[], C]


def run_cases(
    sources: Sequence[Source[C]],
    store: EvaluationStore[ImageRowT],
    restore: Callable[[list[C], Progress], Result],
    measure: Callable[[Source[C], C, Result, float], tuple[ImageRowT, Sequence[Moment]]],
    *,
    batch: int = 1,
    again: bool = False,
    progress: ImageProgress | None = None,
) -> tuple[list[ImageRowT], dict[str, str]]:
    """Restores and measures the cases that `store` has no rows of yet.

    Args:
        sources: the cases, in order.
        store: keeps each row with its image and kernel as soon as it is there.
        restore: restores up to `batch` cases of one size together.
        measure: the row of a case and its kernel's accuracy over the run, given the result of this image and
            the seconds of its share.
        batch: number of consecutive cases of one size to restore at a time.
        again: whether cases that have rows are measured again too.
        progress: called with the number of images done, a fraction included, their total and the name of the
            current image.

    Returns:
        The rows of all cases in order, and by name the reasons why cases were skipped.
    """
    rows: list[ImageRowT] = []
    failures: dict[str, str] = {}
    report = progress or (lambda done, total, name: None)
    waiting: list[tuple[Source[C], C]] = []

    def restore_waiting() -> None:
        if not waiting:
            return
        done, shown = len(rows) + len(failures), ", ".join(source.name for source, _ in waiting)

        def count(stage: str, part: int, whole: int) -> None:
            report(done + len(waiting) * part / max(whole, 1), len(sources), shown)

        try:
            results = restore([case for _, case in waiting], count)
        except MethodError as error:
            failures.update({source.name: f"{source.name}: {error}" for source, _ in waiting})
            waiting.clear()
            return
        for i, (source, case) in enumerate(waiting):
            result = results[i]
            if not result.finite:
                failures[source.name] = "the result has values that are not finite."
                continue
            row, moments = measure(source, case, result, result.seconds["total"] / len(waiting))
            store.add(row, result.tensor, result.kernel, moments)
            rows.append(row)
        waiting.clear()

    for source in sources:
        report(len(rows) + len(failures), len(sources), source.name)
        row = store.find(source.index, source.name)
        if row is not None and not again:
            rows.append(row)
            continue
        try:
            case = source.load()
        except UserError as error:
            failures[source.name] = str(error)
            continue
        if waiting and (len(waiting) == batch or waiting[0][1].blurred.shape != case.blurred.shape):
            restore_waiting()
        waiting.append((source, case))
    restore_waiting()
    return sorted(rows, key=lambda row: row.index), failures
