"""The comparison of two installs, with stubs in the place of their Python programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STUB = """#!{python}
import json, pathlib, sys
import numpy as np
from PIL import Image
arguments = sys.argv[3:]
assert sys.argv[1] == "-c" and "OMP_NUM_THREADS" in __import__("os").environ
value = {value} if arguments[0] == "{command}" else 1
if value is None:
    raise SystemExit("broken")
Image.new("L", (4, 4), value).save("result.png")
np.save("result_kernel.npy", np.full((3, 3), value, np.float32))
result = {{"residual": value, "seconds": {{"total": {seconds}}}, "versions": {{"latentdem": "{seconds}"}}}}
pathlib.Path("result.json").write_text(json.dumps(result))
"""


def stub(folder: Path, name: str, seconds: float, command: str = "none", value: int | None = 1) -> str:
    """An executable that writes the same results for all commands but `command`, which gets `value`."""
    path = folder / name
    path.write_text(STUB.format(python=sys.executable, seconds=seconds, command=command, value=value))
    path.chmod(0o755)
    return str(path)


def test_equal_results_with_other_times_are_the_same(compare_installs, tmp_path, capsys):
    programs = (stub(tmp_path, "before", 1.0), stub(tmp_path, "after", 2.0))
    assert compare_installs.main([*programs, "--quick"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("same")]
    assert len(lines) == 5 * 3
    assert {line.split()[0] for line in lines} == {
        "deblur",
        "restore_disk",
        "restore_inpaint",
        "restore_gamma",
        "views",
    }


def test_one_difference_is_shown_and_fails(compare_installs, tmp_path, capsys):
    programs = (stub(tmp_path, "before", 1.0), stub(tmp_path, "after", 1.0, "deblur", 2))
    assert compare_installs.main([*programs, "--quick"]) == 1
    differing = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert [line.split()[:2] for line in differing] == [
        ["deblur", "result.json"],
        ["deblur", "result.png"],
        ["deblur", "result_kernel.npy"],
    ]
    assert differing[0].endswith("differs: residual")
    assert differing[2].endswith("differs: 9 of 9 entries, by up to 1")


def test_a_command_that_fails_is_reported(compare_installs, tmp_path, capsys):
    programs = (stub(tmp_path, "before", 1.0), stub(tmp_path, "after", 1.0, "views", None))
    assert compare_installs.main([*programs, "--quick"]) == 1
    assert "failed with status 1: broken" in capsys.readouterr().out.splitlines()[-1]


def test_a_single_bit_and_a_missing_file_are_differences(compare_installs, tmp_path):
    for name, value in (("before", 0.0), ("after", -0.0)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "kernel.npy", np.full((1,), value))
    (tmp_path / "after" / "poses.json").write_text(json.dumps([1]))
    rows = dict(compare_installs.compare(tmp_path / "before", tmp_path / "after"))
    assert rows["kernel.npy"].startswith("differs: ")
    assert rows["poses.json"] == "differs: missing before"


def test_entries_that_differ_are_named(compare_installs):
    before = {"settings": {"seed": 0, "old": 1}, "views": [{"polar": 1.0}], "seconds": 3}
    after = {"settings": {"seed": 1}, "views": [{"polar": 2.0}], "seconds": 4}
    assert compare_installs.differing_keys(before, after) == ["settings.old", "settings.seed", "views[0].polar"]


@pytest.mark.parametrize("quick", [True, False])
def test_inputs_are_a_photograph_and_a_mask_of_its_size(compare_installs, tmp_path, quick):
    Image.new("RGB", (128, 100), "red").save(tmp_path / "photo.png")
    paths = compare_installs.prepare_inputs(tmp_path / "photo.png", tmp_path, quick)
    sizes = {Image.open(path).size for path in paths}
    assert sizes == {(96, 96) if quick else (128, 100)}
    assert set(np.unique(np.asarray(Image.open(paths[1])))) == {0, 255}
