"""Standard input and output, consoles that cannot show everything, and what is said when."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from typer.testing import CliRunner

from latentdem.cli import _console as console
from latentdem.cli import app
from latentdem.io.codecs import decode
from latentdem.io.images import write_image

Scene = Callable[..., Tensor]


def test_from_standard_input_to_standard_output(here: Path, fake_deblur: Any) -> None:
    photo = Path("../photo.png")
    result = CliRunner().invoke(app, ["deblur", "-", "--format", "bmp"], input=photo.read_bytes())
    assert result.exit_code == 0
    Path("result.bmp").write_bytes(result.stdout_bytes)
    assert (decode(Path("result.bmp")).array == decode(photo).array).all()
    assert "residual" in result.stderr


class Parts(io.RawIOBase):
    """A file that takes 100 bytes at a time, as standard output may with PYTHONUNBUFFERED."""

    def __init__(self) -> None:
        self.seen = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.seen += bytes(data[:100])
        return len(data[:100])


def test_standard_output_that_takes_parts(
    here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    # A text stream without a buffer, as PYTHONUNBUFFERED makes it, which the type does not foresee.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(parts, write_through=True))  # type: ignore[arg-type]
    app(["deblur", "../photo.png", "-o", "-", "--format", "bmp"], standalone_mode=False)
    Path("result.bmp").write_bytes(parts.seen)
    assert (decode(Path("result.bmp")).array == decode(Path("../photo.png")).array).all()


def test_a_report_goes_into_a_device_and_does_not_replace_it(cli: Any, here: Path, fake_deblur: Any) -> None:
    Path("report").symlink_to("/dev/null")
    cli.run("deblur", "../photo.png", "-o", "a.png", "--json", "report")
    assert Path("report").is_symlink()
    assert Path("report").is_char_device()


def test_from_standard_input_to_a_file(cli: Any, here: Path, fake_deblur: Any) -> None:
    data = Path("../photo.png").read_bytes()
    for out, name in (("a.png", "a.png"), ("new/", "new/stdin_deblurred.png")):
        result = CliRunner().invoke(app, ["deblur", "-", "-o", out], input=data)
        assert result.exit_code == 0
        assert name in result.stdout
        assert Path(name).exists()


@pytest.mark.parametrize(
    ("arguments", "data", "sentence"),
    [
        (["-"], b"", "Standard input is empty"),
        (["-"], b"no image", "standard input is not an image"),
        (["-", "../photo.png"], b"x", "Standard input is one photograph"),
        (["../photo.png", "../photo.png", "-o", "-"], b"", "residual"),
    ],
)
def test_mistakes_with_standard_input(
    here: Path, fake_deblur: Any, arguments: list[str], data: bytes, sentence: str
) -> None:
    result = CliRunner().invoke(app, ["deblur", *arguments], input=data)
    assert sentence in result.stderr
    assert "latentdem-" not in result.stderr


class FullDisk(io.RawIOBase):
    """A file that takes nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_console_never_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(seen, "cp1252"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(FullDisk(), 1), "utf-8"))
    console.protect_streams()
    print("日本.png", flush=True)
    assert seen.getvalue().splitlines() == [rb"\u65e5\u672c.png"]
    print("lost", file=sys.stderr, flush=True)
    console.say_error("lost, too")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["deblur", "none.png"]])
def test_full_console_of_a_process(here: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "latentdem", *arguments]
        run = subprocess.run(command, stdout=full, stderr=full, check=False)
    assert run.returncode == (0 if arguments == ["--help"] else 1)


def test_names_keep_their_brackets_and_are_never_folded(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", -1.0)
    folder = here / ("long " * 30)
    folder.mkdir()
    for name in ("a [red].png", "b.png"):
        write_image(folder / name, scene())
    result = cli.run("deblur", folder, "-o", folder / "out")
    assert f"1/2 {folder}/a [red].png: 17 % after" in result.stderr
    assert f"written to     {folder}/out\n" in result.stdout


def test_lines_of_progress_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 9.0, 10.0, 15.0, 3700.0, 3720.0])
    lines = console._Lines(lambda: next(times))
    for done in range(4):
        lines("kernel search", done, 4)
    lines("restoration", 9, 100)  # too early to tell
    assert capsys.readouterr().err.splitlines() == [
        "kernel search: 25 % after 0:10, 0:30 left",
        "kernel search: 75 % after 1:01:40, 20:33 left",
        "restoration: 9 % after 1:02:00",
    ]


def test_quiet_and_verbose(cli: Any, here: Path, fake_deblur: Any) -> None:
    run = ("deblur", "../photo.png", "--overwrite")
    assert (cli.run(*run, "-q").output, cli.run(*run).stderr) == ("", "")
    assert "Restoring ../photo.png." in cli.run(*run, "-v").stderr
    assert logging.getLogger("latentdem").level == logging.INFO
    assert "torch" in cli.run(*run, "-vv").stderr
    assert "Traceback" in cli.run("deblur", "missing.png", "-vv", status=1).stderr
    assert cli.sentence("deblur", "missing.png", "-q").startswith("missing.png does not exist")


def test_what_the_library_says_is_printed_as_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    console.set_verbosity()
    logging.getLogger("latentdem.io").warning("The profile of %s is damaged.", "[a].jpg")
    console.show_warnings_as_sentences()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        console.show_warnings_as_sentences()
        warnings.warn("Only the first picture is read.", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "The profile of [a].jpg is damaged.",
        "Only the first picture is read.",
    ]


def test_module_is_the_command(here: Path) -> None:
    command = [sys.executable, "-m", "latentdem", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.startswith("latentdem ")


def test_completion_names_operators(here: Path) -> None:
    words = {"COMP_WORDS": "latentdem restore --operator d", "COMP_CWORD": "3"}
    environment = {**os.environ, **words, "_LATENTDEM_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "latentdem"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.stdout.split() == ["disk", "denoise"]
