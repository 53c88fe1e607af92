from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.evaluation import EvaluationSettings, Task, tables
from latentdem.evaluation.accuracy import Moment
from latentdem.evaluation.plots import plot_accuracy
from latentdem.evaluation.protocols import PROTOCOLS, Entry, Protocol, check_settings, comparison, differences
from latentdem.evaluation.self_deblur import SelfDeblur
from latentdem.evaluation.tables import run_protocol
from latentdem.io.images import write_image
from latentdem.output.result import Result
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]
SETTINGS = EvaluationSettings(kernel_size=9, size=32)


class Scaled:
    """A method that returns its input, darkened, and a uniform kernel."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0

    def __str__(self) -> str:
        return f"Scaled({self.factor})"

    def __call__(self, task: Task) -> Result:
        self.calls += 1
        kernel = task.kernel if task.settings.non_blind else torch.full_like(task.kernel, 1 / 81)
        ones = torch.ones(len(task.blurred))
        trace = [TraceStep("search", t, 0.1 * ones, kernel) for t in (999, 499, 600, 0)]
        return Result(
            self.factor * task.blurred, kernel, task.blurred, ones, ones, trace, seconds={"total": 2.0}
        )


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(
        "A table",
        (
            Entry("good", "the good one", Scaled(1.0)),
            Entry("bad", "the bad one", Scaled(0.5), on_request=True),
            Entry("known", "with the true kernel", Scaled(0.9), non_blind=True),
        ),
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pictures that were to be drawn, instead of drawing them."""
    from latentdem.evaluation import loop

    drawn: list[Any] = []
    monkeypatch.setattr(loop, "contact_sheet", lambda rows, path: None)
    monkeypatch.setattr(tables, "comparison_sheet", lambda rows, path: drawn.append(rows))
    return drawn


def test_the_tables_are_complete() -> None:
    names = {name: [entry.name for entry in protocol.entries] for name, protocol in PROTOCOLS.items()}
    assert names["paper-table1"] == [
        "proximal",
        "posterior",
        "fastem-m-step",
        "vanilla-em",
        "blinddps",
        "blinddps-denoiser",
        "gibbsddrm",
        "self-deblur",
        "total-variation",
        "richardson-lucy",
        "gaussian-guess",
        "known",
        "known-wiener",
        "known-richardson-lucy",
    ]
    assert names["paper-table2"] == ["no-skipping", "skip-500-8", "skip-0-8", "skip-0-16"]
    assert names["paper-table6"] == ["vanilla-em", "proximal", "posterior"]
    for wanted in (
        "annealing-1",
        "annealing-3",
        "annealing-4",
        "hqs-5",
        "hqs-10",
        "hqs-15",
        "second-iteration",
    ):
        assert wanted in names["ablations"]
    for protocol in PROTOCOLS.values():
        texts = [(str(entry.method), entry.non_blind) for entry in protocol.entries]
        assert len(set(texts)) == len(texts)  # what tells their folders apart
    assert not {"posterior", "blinddps", "gibbsddrm"} & {e.name for e in PROTOCOLS["paper-table1"].pick([])}


def test_a_comparison_has_rivals_and_kernel_priors_where_they_are_named() -> None:
    table = comparison(non_blind=True)
    kernel_priors = table.pick(["deblur-no-kernel-prior", "deblur-kernel-diffusion"])
    assert [(entry.name, entry.non_blind) for entry in kernel_priors] == [
        ("deblur-kernel-diffusion", False),
        ("deblur-no-kernel-prior", False),
    ]
    assert len({str(entry.method) for entry in kernel_priors}) == 2
    assert [entry.name for entry in table.pick([])] == ["deblur"]
    named = table.pick(["gibbsddrm", "blinddps"])
    assert [(entry.name, entry.non_blind) for entry in named] == [("blinddps", False), ("gibbsddrm", False)]


def test_methods_run_resume_and_are_added(
    photos: Path, tmp_path: Path, protocol: Protocol, quick: list[Any]
) -> None:
    out = tmp_path / "out"
    seen: list[tuple[float, int, str]] = []
    rows = run_protocol(
        photos,
        out,
        protocol,
        protocol.pick([]),
        SETTINGS,
        limit=2,
        batch=2,
        progress=lambda *args: seen.append(args),
    )
    assert [row.entry.name for row in rows] == ["good", "known"]
    good, bad, known = (entry.method for entry in protocol.entries)
    assert (good.calls, bad.calls, known.calls) == (1, 0, 1)  # type: ignore[attr-defined]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[0] == (0, 2, "good: street 0.png")

    rows = run_protocol(photos, out, protocol, protocol.pick(["bad"]), SETTINGS, limit=1)
    assert [row.entry.name for row in rows] == ["good", "bad", "known"]
    assert (good.calls, bad.calls, known.calls) == (1, 1, 1)  # type: ignore[attr-defined]
    with (out / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["method"], r["image"]) for r in table] == [
        ("good", "street 0.png"),
        ("good", "street 1.png"),
        ("bad", "street 0.png"),
        ("known", "street 0.png"),
        ("known", "street 1.png"),
    ]
    assert table[0]["psnr"] == table[0]["psnr_input"]
    assert float(table[0]["seconds"]) == 1.0
    assert table[3]["mnc"] == ""
    text = (out / "table.md").read_text()
    assert "| the bad one | 1 |" in text
    assert "images 2 instead of 64" in text
    summary = json.loads((out / "summary.json").read_text())
    assert summary["methods"]["known"]["images"] == 2
    assert "image size 32 instead of 256" in summary["differs from the paper"]
    captions = [caption for caption, _, _ in quick[-1][1]]
    assert [c.split()[0] for c in captions] == ["input", "good", "known", "reference"]
    assert (out / "psnr_seconds.png").stat().st_size > 1000
    assert (out / "kernel_accuracy.png").stat().st_size > 1000

    with pytest.raises(UserError, match="other settings"):
        run_protocol(
            photos, out, protocol, protocol.pick([]), EvaluationSettings(kernel_size=11, size=32), limit=1
        )


def test_a_protocol_without_usable_images_says_why(tmp_path: Path, protocol: Protocol) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").touch()
    rows = run_protocol(tmp_path / "photos", tmp_path / "out", protocol, protocol.pick([]), SETTINGS, limit=1)
    assert "is empty" in rows[0].evaluation.failures["bad.png"]
    assert not (tmp_path / "out" / "table.md").exists()


def test_names_and_settings_are_checked(protocol: Protocol) -> None:
    assert [e.name for e in protocol.pick(["known", "bad"])] == ["bad", "known"]
    with pytest.raises(UserError, match="no method 'best'; it has good, bad, known"):
        protocol.pick(["best"])
    check_settings(SETTINGS)
    with pytest.raises(UserError, match="leave out --e-step"):
        check_settings(EvaluationSettings(e_step="posterior"))


def test_differences_from_the_paper() -> None:
    entries = PROTOCOLS["paper-table1"].entries
    paper = EvaluationSettings(size=256, prior="sd15")
    assert differences(paper, 64, entries) == []
    assert differences(EvaluationSettings(size=256, prior="sd15", steps=50), 64, entries) == [
        "50 diffusion steps instead of the methods' own"
    ]
    short = PROTOCOLS["paper-table1"].with_iterations(7).entries
    assert [e.method for e in short if isinstance(e.method, SelfDeblur)] == [SelfDeblur(7)]
    assert differences(paper, 64, short) == ["7 iterations of Self-Deblur instead of 5000"]


def test_accuracy_is_drawn_for_runs_of_several_passes(tmp_path: Path) -> None:
    run = [Moment("search", t, 0.1, 0.5) for t in (999, 500, 600, 100)]
    plot_accuracy({"one": [run, run], "two": [run]}, 0.02, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_command_runs_a_protocol(cli: Any, here: Path, scene: Scene) -> None:
    Path("photos").mkdir()
    write_image("photos/a.png", scene(40, 40))
    arguments = ("evaluate", "photos", "--kernel-size", 9, "--size", 32, "--protocol", "paper-table1")
    result = cli.run(*arguments, "--methods", "known-wiener,known-richardson-lucy", "-o", "out")
    assert "Wiener, true kernel" in result.stdout
    assert "image size 32 instead of 256" in result.stdout
    assert (here / "out" / "known-wiener" / "metrics.csv").exists()
    assert "it has proximal, posterior" in cli.sentence(*arguments, "--methods", "magic")
    assert "leave out --margin" in cli.sentence(*arguments, "--margin", 3)
    assert "name it with --protocol" in cli.sentence("evaluate", "photos", "--iterations", 3)
    assert "has no method 'known'; it has deblur" in cli.sentence("evaluate", "photos", "--methods", "known")
