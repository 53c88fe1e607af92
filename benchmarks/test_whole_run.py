"""The whole-run benchmark is started by hand (`python -m benchmarks.whole_run`); here it only has to work."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from latentdem.io.images import read_image, write_image
from latentdem.operators.kernels import gaussian_kernel
from latentdem_ext import reference

from . import baselines, photographs, whole_run


def test_measures_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_run, "MEASURED", 1)
    whole_run.main(["--size", "32", "--kernel-size", "9", "--narrow", "32", "--out", str(tmp_path)])
    (table,) = tmp_path.rglob("whole_run.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [row["run"] for row in rows]
    assert runs[0] == "order of the release"
    assert runs[-1] == "proximal, 50 steps"
    assert len(runs) == len(set(runs)) == 8
    assert all(float(row["s per image"]) > 0 for row in rows)
    steps = {row["run"]: (int(row["full steps"]), int(row["plain steps"])) for row in rows}
    assert steps["posterior, S_T = 0, K = 16"] == (64, 936)
    assert steps["PSLD"] == (1000, 0)
    assert float(rows[0]["release / this"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_photographs_are_restored_with_and_without_native_operations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("blurred", "sharp"):
        part = read_image(photographs.EXAMPLES / f"{name}.png").pixels[..., 60:124, 60:124]
        write_image(tmp_path / f"{name}.png", part)
    monkeypatch.setattr(photographs, "EXAMPLES", tmp_path)
    options = ["--kernel-size", "9", "--quality", "fast"]
    photographs.main([], tmp_path / "out", options, before=sys.executable, sizes=())
    (table,) = tmp_path.rglob("photographs.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["native", "reference", "before"]
    assert all(float(row["CPU-seconds"]) > 0 and float(row["MB"]) > 100 for row in rows)
    assert float(rows[0]["PSNR"]) == pytest.approx(float(rows[1]["PSNR"]), abs=1)
    assert table.with_suffix(".png").stat().st_size > 1000
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_simulated_photographs_have_their_size_and_a_sharp_image(tmp_path: Path) -> None:
    blurred, sharp = (read_image(path).pixels for path in photographs.simulated(48, tmp_path))
    assert blurred.shape == sharp.shape == (1, 3, 48, 48)
    assert 0.01 < (blurred - sharp).square().mean() < 0.1 < sharp.std()


@pytest.mark.parametrize(
    ("name", "predictions", "encodes", "iterations"),
    [
        ("order of the release", 2, 1, 20),
        ("DPS, in latents", 1, 0, 0),
        ("PSLD", 2, 1, 0),
        ("FastDiffusionEM, in latents", 1, 0, 10),
    ],
)
def test_public_steps_evaluate_what_their_programs_do(
    name: str, predictions: int, encodes: int, iterations: int
) -> None:
    vae, unet, _ = whole_run.networks(32)
    asked: dict[str, list[bool]] = {"unet": [], "decoder": [], "encoder": [], "denoise": []}

    def note(what: str, x: torch.Tensor) -> None:
        asked[what] += [x.requires_grad] * len(x)

    for what, network in (("unet", unet), ("decoder", vae.decoder), ("encoder", vae.encoder)):
        network.register_forward_pre_hook(lambda _, given, what=what: note(what, given[0]))

    def denoise(kernel: torch.Tensor, level: float) -> torch.Tensor:
        note("denoise", kernel)
        return kernel

    text, y = torch.randn(1, 77, unet.config["cross_attention_dim"]), torch.rand(1, 3, 32, 32) * 2 - 1
    public = baselines.PublicSteps(vae, unet, text, denoise, y, torch.bfloat16)
    step, _ = whole_run.public_runs(public)[name]
    z = torch.randn(1, 4, 4, 4)
    moved = step(z, gaussian_kernel(9, 2))
    assert moved.shape == z.shape
    assert moved.isfinite().all()
    assert not moved.requires_grad
    # The gradient goes through all networks of images, and no kernel is differentiated.
    assert asked == {
        "unet": [True] * predictions,
        "decoder": [True],
        "encoder": [True] * encodes,
        "denoise": [False] * iterations,
    }


def test_public_blurs_are_those_of_the_operations() -> None:
    x, kernel = torch.randn(2, 3, 12, 14), torch.rand(2, 1, 5, 5)
    torch.testing.assert_close(baselines._blurred(x, kernel), reference.blur(x, kernel))
    adjoint = baselines._blurred(x, kernel, adjoint=True)
    torch.testing.assert_close(adjoint, reference.blur_adjoint(x, kernel))
