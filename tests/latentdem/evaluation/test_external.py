"""Results and programs of other people as rows, by the interface of Python and by the command line."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentdem.errors import UserError
from latentdem.evaluation import EvaluationSettings, run_evaluation
from latentdem.evaluation.cases import make_case
from latentdem.evaluation.external import Program, Published
from latentdem.evaluation.method_names import parse_methods, split_methods
from latentdem.evaluation.programs import Command
from latentdem.io.images import read_image, write_image
from latentdem.io.kernels import write_kernel

from .conftest import Scene, Table

SETTINGS = EvaluationSettings(kernel_size=9)
COPY = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])' {{input}} {{output}}"

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_published_results_are_scored_with_their_kernels(photos: Path, tmp_path: Path, table: Table) -> None:
    results = tmp_path / "theirs"
    results.mkdir()
    case = make_case(photos / "street 0.png", 0, SETTINGS)
    write_image(results / "street 0.png", case.reference)
    write_kernel(results / "street 0_kernel", case.kernel)
    evaluation = run_evaluation(photos, tmp_path / "out", SETTINGS, method=Published(results))
    (row,) = evaluation.rows
    assert row.psnr > 45
    assert row.mnc == pytest.approx(1)
    assert (row.seconds, row.memory_mb, row.noise_sigma, row.residual) == (None, None, None, None)
    assert evaluation.failures == {
        "street 1.png": f"street 1.png: {results} has no result of street 1 in a known layout."
    }
    assert table(tmp_path / "out" / "metrics.csv")[0]["seconds"] == ""


def test_published_results_are_read_again(photos: Path, tmp_path: Path, scene: Scene) -> None:
    results = tmp_path / "theirs"
    results.mkdir()
    write_image(results / "street 0.png", scene(40, 40, seed=5))
    before = run_evaluation(photos, tmp_path / "out", SETTINGS, method=Published(results)).rows[0]
    assert before.mnc is None  # a picture without a kernel
    write_image(results / "street 0.png", scene(40, 40, seed=0))
    after = run_evaluation(photos, tmp_path / "out", SETTINGS, method=Published(results)).rows[0]
    assert after.psnr > before.psnr + 10


def test_picture_of_another_size_is_a_failure(photos: Path, tmp_path: Path, scene: Scene) -> None:
    write_image(tmp_path / "street 0.png", scene(40, 38))
    evaluation = run_evaluation(photos, tmp_path / "out", SETTINGS, method=Published(tmp_path), limit=1)
    assert "street 0.png is 38 x 40 pixels, and its input 40 x 40." in evaluation.failures["street 0.png"]


def test_program_gets_what_its_command_names(photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "restore.py"
    script.write_text(
        "import json, shutil, sys\n"
        "import numpy as np\n"
        "source, target, kernel, estimate, size, sigma = sys.argv[1:]\n"
        "np.save(estimate, np.load(kernel))\n"
        "assert (np.load(kernel).shape, size, sigma) == ((9, 9), '9', '0.02')\n"
        "shutil.copy(source, target)\n"
    )
    words = "{input} {output} {kernel} {kernel_output} {kernel_size} {sigma}"
    program = Program(Command(f"{sys.executable} {script} {words}"))
    assert program.non_blind
    settings = replace(SETTINGS, non_blind=True)
    evaluation = run_evaluation(photos, tmp_path / "out", settings, method=program, batch=2)
    assert not evaluation.failures
    row = evaluation.rows[1]
    assert row.psnr == pytest.approx(row.psnr_input, abs=0.1)  # but for clipping and rounding
    assert row.seconds is not None
    assert row.seconds > 0
    assert row.mnc is None
    kernel = np.load(tmp_path / "out" / "images" / "001_street 1_kernel.npy")
    np.testing.assert_allclose(kernel, make_case(photos / "street 1.png", 1, SETTINGS).kernel[0, 0], atol=1e-6)


def test_failed_image_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, cli: Any, table: Table
) -> None:
    script = tmp_path / "fragile.py"
    script.write_text(
        "import shutil, sys\n"
        "if 'street 1' in sys.argv[1]:\n"
        "    sys.exit('CUDA out of memory')\n"
        "shutil.copy(sys.argv[1], sys.argv[2])\n"
    )
    command = f"command:{sys.executable} {script} {{input}} {{output}}"
    out = tmp_path / "out"
    result = cli.run("evaluate", photos, "--kernel-size", 9, "-o", out, "--methods", command)
    assert "| fragile | 1 of 2 |" in result.stdout
    reason = "street 1.png: it ended with exit status 1, after 'CUDA out of memory'."
    assert f"Failed, fragile: {reason}" in result.stdout
    rows = table(out / "metrics.csv")
    assert [(row["image"], row["failure"]) for row in rows] == [("street 0.png", ""), ("street 1.png", reason)]
    assert rows[1]["psnr"] == ""
    summary = json.loads((out / "summary.json").read_text())
    assert summary["methods"]["fragile"]["failures"] == {"street 1.png": reason}


def test_program_that_works_nowhere_is_a_row_all_the_same(
    photos: Path, tmp_path: Path, cli: Any, fake_deblur: Any
) -> None:
    out = tmp_path / "out"
    run = ("evaluate", photos, "--kernel-size", 9, "-o", out)
    result = cli.run(*run, "--methods", "deblur,broken=command:true {input} {output}")
    assert "| latentdem deblur | 2 |" in result.stdout
    assert "| broken | 0 of 2 | - |" in result.stdout
    assert "Failed, broken: street 0.png: it left no picture at {output}" in result.stdout
    run = ("evaluate", photos, "--kernel-size", 9, "-o", tmp_path / "alone")
    alone = cli.run(*run, "--methods", "command:true {input} {output}", status=1)
    assert "it left no picture" in alone.stderr


def test_time_limit_is_an_option(photos: Path, tmp_path: Path, cli: Any) -> None:
    run = ("evaluate", photos, "--kernel-size", 9, "--limit", 1, "-o", tmp_path / "out")
    result = cli.run(*run, "--time-limit", 0.2, "--methods", "command:sleep 9; : {input} {output}", status=1)
    assert "stopped at the time limit of 0.2 s" in result.stderr


def test_methods_are_added_and_earlier_ones_stay(
    photos: Path, tmp_path: Path, cli: Any, fake_deblur: Any, table: Table
) -> None:
    out = tmp_path / "out"
    run = ("evaluate", photos, "--kernel-size", 9, "-o", out, "--methods")
    cli.run(*run, f"copy=command:{COPY}")
    (tmp_path / "theirs").mkdir()
    write_image(tmp_path / "theirs" / "street 1.png", read_image(photos / "street 1.png").pixels)
    result = cli.run(*run, f"deblur, published:{tmp_path}/theirs")
    for text in ("| latentdem deblur | 2 |", "| theirs | 1 of 2 |", "| copy | 2 |"):
        assert text in result.stdout
    assert [row["method"] for row in table(out / "metrics.csv")] == ["deblur"] * 2 + ["theirs"] * 2 + [
        "copy"
    ] * 2


def test_methods_of_a_table_of_the_paper(photos: Path, tmp_path: Path, cli: Any) -> None:
    run = ("evaluate", photos, "--kernel-size", 9, "--size", 32, "-o", tmp_path / "out", "--protocol")
    result = cli.run(*run, "paper-table1", "--methods", f"known-wiener,copy=command:{COPY}")
    assert "| Wiener, true kernel | 2 |" in result.stdout
    assert "| copy | 2 |" in result.stdout
    assert "image size 32 instead of 256" in result.stdout


def test_real_pictures_are_compared(
    levin: Path, tmp_path: Path, cli: Any, fake_deblur: Any, table: Table
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write_image(theirs / "im1_kernel1_img_x.png", read_image(levin / "sharp" / "im1.png").pixels)
    write_kernel(theirs / "im1_kernel1_img_k", torch.ones(1, 1, 17, 17) / 289)
    out = tmp_path / "out"
    run = ("evaluate", levin, "--protocol", "levin", "-o", out, "--methods")
    result = cli.run(*run, f"deblur,SelfDeblur=published:{theirs}")
    assert re.search(r"\| deblur \| 2 \|", result.stdout)
    assert re.search(r"\| SelfDeblur \| 1 of 2 \|.*\| 1\.000 \|", result.stdout)
    assert "| **SelfDeblur, 1 of 32 pictures** |" in result.stdout
    assert "| Restormer | 27.78 | - |" in result.stdout
    assert f"Failed, SelfDeblur: im2_kernel1: {theirs} has no result of im2_kernel1_img" in result.stdout
    assert "-" in (out / "SelfDeblur" / "table.md").read_text()
    again = cli.run(*run, f"copy=command:{COPY}", "--cases", "im1_*")
    for name in ("deblur | 2", "SelfDeblur | 1 ", "copy | 1"):
        assert f"| {name}" in again.stdout
    rows = table(out / "metrics.csv")
    assert {row["method"] for row in rows} == {"copy", "deblur", "SelfDeblur"}
    copied = next(row for row in rows if row["method"] == "copy")
    assert float(copied["gain"]) == pytest.approx(0, abs=0.2)
    assert float(copied["cpu_seconds"]) > 0
    assert copied["explained"] == ""
    assert "holds the evaluation of one method" in cli.sentence(
        "evaluate", levin, "--protocol", "levin", "-o", out / "deblur", "--methods", "deblur"
    )
    assert "no method 'proximal' for real pictures; there are deblur" in cli.sentence(*run, "proximal")
    assert "which is not known here; give --noise-sigma" in cli.sentence(
        *run, "command:a {input} {output} {sigma}"
    )


def test_lai_is_split_by_category(tmp_path: Path, scene: Scene, cli: Any, fake_deblur: Any) -> None:
    folder = tmp_path / "lai"
    for part in ("blurred", "sharp"):
        (folder / part).mkdir(parents=True)
    for name in ("manmade_01", "text_01"):
        write_image(folder / "sharp" / f"{name}.png", scene(60, 60))
        write_image(folder / "blurred" / f"{name}_kernel_01.png", scene(60, 60) * 0.9)
    run = ("evaluate", folder, "--protocol", "lai", "--kernel-size", 9, "-o", tmp_path / "out")
    result = cli.run(*run, "--methods", f"all,copy=command:{COPY}")
    assert "| method | manmade | text |" in result.stdout
    assert re.search(r"\| copy \| \d\d\.\d\d \| \d\d\.\d\d \|", result.stdout)
    assert "| deblur | 2 |" in result.stdout


def test_photographs_are_compared_without_scores(photos: Path, tmp_path: Path, cli: Any) -> None:
    run = ("evaluate", photos, "--protocol", "photographs", "-o", tmp_path / "out", "--methods")
    result = cli.run(*run, f"copy=command:{COPY}")
    assert re.search(r"\| method \| pictures \| seconds \| CPU-s \|( MB \|)? worst gain \|", result.stdout)


def test_names_folders_and_commands_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    names, others = parse_methods(
        ["known, posterior", f"a=published:{tmp_path}/b,vanilla-em,command:x a,b {{input}} {{output}}"]
    )
    assert names == ["known", "posterior", "vanilla-em"]
    assert [(other.name, other.non_blind) for other in others] == [("a", False), ("x", False)]
    assert str(others[1].method) == "command:x a,b {input} {output}"
    (other,) = parse_methods(["command:cd ~/MPRNet && python3 tools/demo.py {input} {output} {kernel}"])[1]
    assert (other.name, other.non_blind) == ("demo", True)
    assert [spec.name for spec in split_methods(["published:/", "command:./a(b).sh 'x"])[1]] == [
        "other",
        "a_b_",
    ]
    with pytest.raises(UserError, match="does not say where"):
        parse_methods(["command:"])
    with pytest.raises(UserError, match="There is no folder 'missing' of published results"):
        parse_methods(["published:missing"])
    with pytest.raises(UserError, match=r"does not say where {input} or {input_folder} goes"):
        parse_methods(["command:true {output}"])


def test_two_methods_of_one_name_are_refused(photos: Path, cli: Any) -> None:
    run = ("evaluate", photos, "--methods")
    sentence = cli.sentence(*run, "command:a {input} {output}", "--methods", "command:a -x {input} {output}")
    assert "Two methods are called 'a'; name one of them" in sentence
    assert "called 'deblur'" in cli.sentence(*run, "deblur=command:a {input} {output}")


def test_inputs_are_exported_as_the_methods_get_them(photos: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "inputs"
    (photos / "bad.png").touch()
    result = cli.run("evaluate", photos, "--kernel-size", 9, "--size", 32, "--export", out)
    assert "bad.png is empty" in result.stderr
    # The broken file counts in the numbering of the images, as in an evaluation.
    case = make_case(photos / "street 1.png", 2, replace(SETTINGS, size=32))
    blurred = read_image(out / "blurred" / "street 1.png").pixels
    assert (blurred - case.blurred.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6
    np.testing.assert_array_equal(np.load(out / "kernels" / "street 1.npy"), case.kernel[0, 0].numpy())
    assert cli.names(out / "sharp") == ["street 0.png", "street 1.png"]
    assert "other settings" in cli.sentence("evaluate", photos, "--kernel-size", 11, "--export", out)
    write_image(photos / "street 1.bmp", case.reference)
    assert "Two images" in cli.sentence("evaluate", photos, "--export", out)
    assert "are inputs already" in cli.sentence("evaluate", photos, "--protocol", "levin", "--export", out)
