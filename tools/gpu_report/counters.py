"""What Nsight Compute is asked for, and what it has written."""

from __future__ import annotations

import csv
from typing import Any

# Column of the report, metric of Nsight Compute.
METRICS = {
    "us": "gpu__time_duration.sum",
    "read": "dram__bytes_read.sum",
    "written": "dram__bytes_write.sum",
    "memory_%": "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "compute_%": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "warps_%": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
}
# The clocks are left as they are: other programs may share the server.
COMMAND = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw"]
COMMAND += ["--metrics", ",".join(METRICS.values())]


def rows(output: str) -> list[dict[str, Any]]:
    """A row for every launch, from the CSV that ncu writes among other lines; units are those of ncu."""
    lines = output.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    table = list(csv.DictReader(line for line in lines[start:] if line.startswith('"')))
    units = next((row for row in table if not row["ID"]), {})
    found = []
    for launch in table:
        if launch["ID"]:
            row = {"kind": "counters", "kernel": launch["Kernel Name"][:60], "grid": launch["Grid Size"]}
            for column, metric in METRICS.items():
                row[column] = f"{launch.get(metric, '-')} {units.get(metric) or ''}".strip()
            found.append(row)
    return found
