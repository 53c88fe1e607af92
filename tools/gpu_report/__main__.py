"""Runs the steps of the report in their order, and writes it again after every one."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from .environment import architecture, device_name, environment
from .plan import NEEDS_DEVICE, ROOT, STEPS, Place
from .report import slug, write
from .steps import Outcome


def main(arguments: list[str] | None = None) -> int:
    """Runs the steps that are asked for; returns 0 where nothing failed, else 1."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu_report", description="Build, test and measure on a GPU."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="a folder per device")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of all steps together (default 8)")
    steps = {"nargs": "+", "choices": names, "metavar": "STEP"}
    parser.add_argument("--only", default=names, help=", ".join(names), **steps)
    parser.add_argument("--skip", default=[], **steps)
    parser.add_argument("--rehearse", action="store_true", help="on the processor, with small arrays")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the running step too

    # Ends the program where there is no GPU.
    name, capability = ("rehearsal", "") if options.rehearse else (device_name(), architecture())
    skipped = {*options.skip, *(NEEDS_DEVICE if options.rehearse else ())}
    target = options.out.resolve() / slug(name)
    target.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        log, results = target / "log.txt", target / "results.jsonl"
        for file in (log, results):
            file.write_text("")
        place = Place(Path(temporary), log, results, capability, options.rehearse)
        described = environment(ROOT)
        for step in STEPS:
            if step.name not in options.only or step.name in skipped:
                continue
            left = end - time.monotonic()
            limit = left if options.rehearse else min(step.seconds, left)  # a processor may be busy
            outcomes.append(step.do(step.name, place, limit))
            print(f"    {outcomes[-1].state} {outcomes[-1].seconds:.0f} s {outcomes[-1].detail}", flush=True)
            write(target, name, described, outcomes, place.results)
    failures = [outcome for outcome in outcomes if outcome.failed]
    print(f"{target}{os.sep}report.md: {len(failures)} of {len(outcomes)} steps failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
