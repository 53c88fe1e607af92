from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import latentdem
from latentdem.cli._options import FormatName
from latentdem.errors import UserError
from latentdem.io.codecs import WRITABLE, decode, encode, family_of
from latentdem.io.images import write_image
from latentdem.io.kernels import read_kernel, write_kernel
from latentdem.operators.kernels import delta_kernel, gaussian_kernel

Scene = Callable[..., Tensor]


def test_one_photograph_comes_out_beside_its_input(cli: Any, here: Path, fake_deblur: Any) -> None:
    result = cli.run("deblur", "../photo.png", "--kernel-size", 9)
    assert cli.names(here) == []
    assert cli.names(here.parent) == ["here", "photo.png", "photo_deblurred.png"]
    np.testing.assert_array_equal(
        decode(Path("../photo_deblurred.png")).array, decode(Path("../photo.png")).array
    )
    assert "../photo_deblurred.png" in result.stdout
    for value in ("0.0100", "0.0200", "2.0"):  # noise, residual, seconds
        assert value in result.stdout
    call = fake_deblur.calls[0]
    assert (call["kernel_size"], call["kernel"], call["noise_sigma"], call["steps"]) == (9, None, None, None)
    assert (call["prior"], call["e_step"], call["device"], call["boundary"]) == (
        "embedded",
        "proximal",
        "auto",
        "auto",
    )
    assert (call["precision"], call["cuda_graph"], call["compile"]) == ("auto", True, False)


def test_extras_go_to_a_folder_of_their_own(cli: Any, here: Path, fake_deblur: Any) -> None:
    result = cli.run("deblur", "../photo.png", "--kernel-size", 9, "--extras", "extras/run")
    assert cli.names(here) == ["extras"]
    assert cli.names(here / "extras" / "run") == [
        "photo_deblurred_figure.png",
        "photo_deblurred_kernel.npy",
        "photo_deblurred_kernel.png",
        "photo_deblurred_report.json",
    ]
    assert read_kernel(here / "extras/run/photo_deblurred_kernel.npy")[0, 0, 4, 4] == 1
    report = json.loads((here / "extras/run/photo_deblurred_report.json").read_text())
    assert (report["input"], report["output"], report["status"]) == (
        "../photo.png",
        "../photo_deblurred.png",
        "restored",
    )
    assert "extras/run" in result.stdout


def test_known_kernel_is_no_result(cli: Any, here: Path, fake_deblur: Any) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    cli.run("deblur", "../photo.png", "--kernel", "known.npy", "--extras", "extras")
    names = cli.names(here / "extras")
    assert names == ["photo_deblurred_figure.png", "photo_deblurred_report.json"]
    report = json.loads((here / "extras/photo_deblurred_report.json").read_text())
    assert report["kernel_size"] == 7


def test_kernels_of_a_camera_that_turned_go_to_the_extras(cli: Any, here: Path, fake_deblur: Any) -> None:
    cli.run(
        "deblur", "../photo.png", "-o", "a.png", "--extras", "extras", "--blur", "varying", "--kernel-size", 9
    )
    assert fake_deblur.calls[0]["blur"] == "varying"
    assert np.load("extras/a_kernels.npy").shape == (25, 9, 9)


def test_uncertainty_goes_to_the_extras(cli: Any, here: Path, fake_deblur: Any) -> None:
    arguments = ["deblur", "../photo.png", "-o", "a.png", "--extras", "extras", "--uncertainty"]
    result = cli.run(*arguments)
    assert fake_deblur.calls[0]["num_samples"] == 4
    names = ["kernel_uncertainty.npy", "uncertainty.npy", "uncertainty.png"]
    assert [name for name in cli.names(here / "extras") if "uncertainty" in name] == [f"a_{n}" for n in names]
    np.testing.assert_array_equal(np.load("extras/a_uncertainty.npy"), np.full((40, 48), 0.125, np.float32))
    assert np.load("extras/a_kernel_uncertainty.npy").max() == np.float32(0.1)
    assert "uncertainty  0.1250" in result.stdout
    assert json.loads((here / "extras/a_report.json").read_text())["uncertainty"] == 0.125
    write_kernel("known", gaussian_kernel(7, 1.5))
    cli.run(*arguments[:4], "--kernel", "known.npy", "--extras", "known/", "--uncertainty", "--overwrite")
    assert [name for name in cli.names(here / "known") if "uncertainty" in name] == [
        f"a_{n}" for n in names[1:]
    ]


def test_a_refused_result_has_no_uncertainty(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    fake_deblur.image = -scene()
    options = ["--noise-sigma", 0.009, "--unexplained", "input", "--extras", "extras", "--uncertainty"]
    cli.run("deblur", "../photo.png", "-o", "a.png", *options, status=3)
    assert not [name for name in cli.names(here / "extras") if "uncertainty" in name]


def test_existing_result_is_kept_unless_told_otherwise(cli: Any, here: Path, fake_deblur: Any) -> None:
    arguments = ["deblur", "../photo.png", "-o", "out.png"]
    (here / "out.png").write_bytes(b"mine")
    assert cli.sentence(*arguments).startswith("out.png exists already; add --overwrite")
    assert "exists already" in cli.run(*arguments, "--skip-existing").stdout
    assert (here / "out.png").read_bytes() == b"mine"
    assert not fake_deblur.calls
    assert "exclude each other" in cli.sentence(*arguments, "--skip-existing", "--overwrite")
    cli.run(*arguments, "--overwrite")
    assert decode(here / "out.png").array.shape == (40, 48, 3)
    assert cli.sentence(*arguments, "--overwrite", "--json", "../photo.png").startswith(
        "../photo.png is an input"
    )


@pytest.mark.parametrize("name", ["jpg", "tif", "webp", "bmp"])
def test_format_of_the_result(cli: Any, here: Path, fake_deblur: Any, name: str) -> None:
    cli.run("deblur", "../photo.png", "--format", name)
    assert decode(Path(f"../photo_deblurred.{name}")).family == family_of(Path(f"a.{name}"))


def test_every_format_by_name_can_be_written() -> None:
    assert {family_of(Path(f"a{each.suffix}")) for each in FormatName} == set(WRITABLE)


def test_format_and_name_of_the_result_agree(cli: Any, here: Path, fake_deblur: Any) -> None:
    arguments = ["deblur", "../photo.png", "--format", "jpg", "-o"]
    assert "a.png is not a jpg file" in cli.sentence(*arguments, "a.png")
    cli.run(*arguments, "a.jpeg")
    assert cli.names(here) == ["a.jpeg"]


@pytest.mark.parametrize("written", ["input", "result"])
def test_picture_that_no_kernel_explains_comes_back_as_it_was(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, written: str
) -> None:
    fake_deblur.image = -scene()
    arguments = ["deblur", "../photo.png", "-o", "out.png", "--overwrite"]
    assert not cli.run(*arguments).stderr
    options = ["--noise-sigma", 0.009, "--json", "r.json", "--unexplained", written]
    result = cli.run(*arguments, *options, status=3)
    sentence = {"input": "is the picture as it was; try", "result": "is probably wrong; try"}[written]
    assert sentence in result.stderr
    report = json.loads((here / "r.json").read_text())
    assert report["explained"] is False
    assert report["written"] == written
    same = decode(here / "out.png").array == decode(Path("../photo.png")).array
    assert bool(same.all()) == (written == "input")


@pytest.mark.filterwarnings("always:The kernel found")
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_kernel_that_hardly_blurs_is_said_to(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    def deblur(*arguments: Any, **options: Any) -> Any:
        kernel = share * delta_kernel(9) + (1 - share) / 81
        checks = {name: torch.tensor([value]) for name, value in (("unexplained", 0.0), ("coverage", 1.0))}
        return replace(fake_deblur(*arguments, **options), kernel=kernel, **checks)

    monkeypatch.setattr(latentdem, "deblur", deblur)
    result = cli.run("deblur", "../photo.png", "-o", "out.png", "--json", "r.json")
    sentence = "The kernel found for ../photo.png hardly blurs"
    assert (sentence in result.stderr) == (share > 0.4)
    assert len(json.loads(Path("r.json").read_text())["warnings"]) == (share > 0.4)


def test_known_kernel_is_reported_and_not_refused(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    fake_deblur.image = -scene()
    options = ["--noise-sigma", 0.009, "--kernel", "known.npy", "--json", "r.json"]
    result = cli.run("deblur", "../photo.png", "-o", "photo_deblurred.png", *options)
    assert "The kernel does not explain the picture" in result.stderr
    assert json.loads((here / "r.json").read_text())["written"] == "result"
    assert (decode(here / "photo_deblurred.png").array != decode(Path("../photo.png")).array).any()


def test_deblur_passes_its_options_on(cli: Any, here: Path, fake_deblur: Any) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    options = "--noise-sigma 0.03 --prior p --e-step posterior --steps 5 --seed 3 --device cpu --boundary valid"
    options += " --precision float32 --quality fast --no-cuda-graph"
    cli.run("deblur", "../photo.png", *options.split(), "--kernel", "known.npy", "-o", "out.tif")
    call = fake_deblur.calls[0]
    assert torch.allclose(call["kernel"], gaussian_kernel(7, 1.5))
    assert (call["noise_sigma"], call["prior"], call["e_step"], call["steps"]) == (0.03, "p", "posterior", 5)
    assert (call["seed"], call["device"], call["boundary"]) == (3, "cpu", "valid")
    assert (call["precision"], call["quality"]) == ("float32", "fast")
    assert (call["cuda_graph"], call["compile"]) == (False, False)
    assert cli.names(here) == ["known.npy", "known.png", "out.tif"]


@pytest.mark.parametrize("out", ["new/", "new/deeper/", "existing"])
def test_deblur_into_a_folder(cli: Any, here: Path, fake_deblur: Any, out: str) -> None:
    (here / "existing").mkdir()
    cli.run("deblur", "../photo.png", "-o", out)
    assert "photo_deblurred.png" in cli.names(here / out)


def test_deblur_keeps_format_depth_and_transparency(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene
) -> None:
    array = (np.random.default_rng(0).random((40, 48, 4)) * 65535).astype(np.uint16)
    encode(here / "deep.png", array)
    cli.run("deblur", "deep.png")
    np.testing.assert_array_equal(decode(here / "deep_deblurred.png").array, array)
    write_image(here / "a.JPEG", scene())
    cli.run("deblur", "a.JPEG")
    assert Image.open(here / "a_deblurred.JPEG").format == "JPEG"


def test_deblur_measures_against_a_reference(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    write_image("sharp.png", (scene() * 0.8))
    result = cli.run(
        "deblur",
        "../photo.png",
        "--kernel-size",
        9,
        "--reference",
        "sharp.png",
        "--json",
        "r.json",
    )
    assert "PSNR" in result.stdout
    report = json.loads((here / "r.json").read_text())
    metrics = report["metrics"]
    assert metrics["result"]["psnr"] == metrics["input"]["psnr"] > 10
    assert f"{metrics['result']['psnr']:.2f} dB" in result.stdout
    assert report["settings"]["seed"] == 0
    assert report["device"] == "cpu"


def test_deblur_measures_exact_results(cli: Any, here: Path, fake_deblur: Any) -> None:
    cli.run("deblur", "../photo.png", "--kernel-size", 9, "--reference", "../photo.png", "--json", "r.json")
    assert json.loads((here / "r.json").read_text())["metrics"]["result"]["psnr"] is None


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["missing.png"], "missing.png does not exist"),
        ([".", "--reference", "other.png"], "--reference belongs to one photograph"),
        (["*.jpg"], "No file matches '*.jpg'"),
        (["../photo.png", "-o", "nowhere/x.png"], "the folder nowhere does not exist"),
        (["../photo.png", "-o", "x.gif"], "does not name an image format"),
        (["../photo.png", "-o", "x"], "There is no folder x; add a / to make it"),
        (["../photo.png", "-o", "../photo.png"], "is an input and would be overwritten"),
        (["../photo.png", "--json", "../photo.png"], "is an input and would be overwritten"),
        (["../photo.png", "--json", "."], "it is a folder"),
        (["../photo.png", "--kernel", "missing.npy"], "missing.npy does not exist"),
        (["../photo.png", "--uncertainty"], "add --extras DIR"),
        (["../photo.png", "--uncertainty", "--extras", "e", "--checkpoint", "c"], "leave out --checkpoint"),
        (["../photo.png", "--uncertainty", "--extras", "e", "--e-step", "posterior"], "leave out --e-step"),
        (["../photo.png", "--reference", "missing.png"], "missing.png does not exist"),
        (
            ["../photo.png", "--reference", "other.png"],
            "is 20 x 30 grey and the image ../photo.png is 48 x 40 RGB",
        ),
    ],
)
def test_deblur_refuses_before_it_computes(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, args: list[str], expected: str
) -> None:
    write_image("other.png", scene(30, 20, 1))
    assert expected in cli.sentence("deblur", *args)
    assert not fake_deblur.calls
    assert cli.names(here) == ["other.png"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--kernel-size", "2"], "at least 3 pixels, not 2"),
        (["--kernel-size", "41"], "larger than the image (48 x 40)"),
        (["--device", "cuda", "--kernel-size", "9"], "No CUDA device"),
        (["--prior", "nowhere", "--kernel-size", "9"], "nowhere"),
    ],
)
def test_deblur_with_unusable_settings(
    cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert expected in cli.sentence("deblur", "../photo.png", *args)  # the real method, which refuses at once
    assert cli.names(here) == []


def test_no_write_permission_is_found_before_computing(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # chmod does not stop a test that runs as root
    assert cli.sentence("deblur", "../photo.png", "--kernel-size", 9).endswith(
        "permission denied; choose another place."
    )
    assert not fake_deblur.calls


def test_interruption_writes_nothing(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at = 0
    text = cli.sentence("deblur", "../photo.png", "--kernel-size", 9, "--json", "r.json", status=130)
    assert text == "Interrupted; nothing was written."
    assert cli.names(here) == []


def test_interruption_with_a_checkpoint(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at = 0
    text = cli.sentence("deblur", "../photo.png", "--kernel-size", 9, "--checkpoint", "kept", status=130)
    assert text == "Interrupted; the run is saved in kept, and the same command resumes it."


def test_photograph_is_written_before_anything_else(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(figure: Figure, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("latentdem.output.figures.save_figure", interrupt)
    text = cli.sentence("deblur", "../photo.png", "-o", "a.png", "--extras", "extras", status=130)
    assert text == "Interrupted; a.png is written, but not all that goes with it."
    assert "a.png" in cli.names(here)


def test_extras_that_cannot_be_written_cost_nothing_else(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(figure: Figure, path: Path) -> None:
        raise ValueError("no such backend")

    monkeypatch.setattr("latentdem.output.figures.save_figure", refuse)
    result = cli.run("deblur", "../photo.png", "-o", "a.png", "--extras", "extras", status=4)
    assert "../photo.png is written, but not extras/a_figure.png: no such backend" in result.stderr
    assert cli.names(here / "extras") == ["a_kernel.npy", "a_kernel.png", "a_report.json"]


def test_full_disk_is_one_sentence(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latentdem.io.images.encode", full)
    assert cli.sentence("deblur", "../photo.png", "-o", "a.png").endswith("no space left on device.")
    assert cli.names(here) == []


def test_user_errors_of_the_method_are_one_sentence(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = (
        0,
        UserError("Unknown prior [red]x[/red]; give another. " + "long " * 50),
    )
    assert cli.sentence("deblur", "../photo.png").startswith("Unknown prior [red]x[/red]; give another.")


def test_defects_keep_their_traceback(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = 0, RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        cli.run("deblur", "../photo.png")
