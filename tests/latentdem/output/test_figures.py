from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.operators.kernels import gaussian_kernel
from latentdem.output.figures import plot_result, save_figure
from latentdem.output.result import Result
from latentdem.output.sheets import SheetRow, contact_sheet
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]


def a_result(image: Tensor, *, moving: bool = True, steps: int = 20, stages: int = 2) -> Result:
    kernel = gaussian_kernel(9, 1.0)
    trace = [
        TraceStep(
            f"pass {i * stages // steps}",
            900 - 40 * i,
            torch.tensor([0.3 * 0.8**i]),
            gaussian_kernel(5 if i < steps // 2 else 9, 3.0 - 2 * i / steps) if moving else kernel,
        )
        for i in range(steps)
    ]
    return Result(image, kernel, image, torch.tensor([0.02]), torch.tensor([0.02]), trace)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 100), (100, 30), (40, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("true_kernel", [None, gaussian_kernel(9, 1.0)])
def test_panels_of_every_shape_lie_inside_without_overlap(
    scene: Scene, height: int, width: int, channels: int, true_kernel: Tensor | None
) -> None:
    figure = plot_result(a_result(scene(height, width, channels)), true_kernel)
    axes = figure.axes
    assert len(axes) == 2 + (1 if true_kernel is None else 2) + 6 + 1
    boxes = [a.get_position() for a in axes]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0
        assert a.y0 >= 0
        assert a.x1 <= 1
        assert a.y1 <= 1
        for b in boxes[:i]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    size = figure.get_size_inches()
    for box in boxes[:2]:
        assert box.width * size[0] / (box.height * size[1]) == pytest.approx(width / height)
    assert max(size) < 13


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 100)])
def test_uncertainties_of_image_and_kernel_are_shown(scene: Scene, height: int, width: int) -> None:
    result = a_result(scene(height, width))
    result.uncertainty = torch.linspace(0, 0.2, height * width).view(1, 1, height, width)
    result.kernel_uncertainty = 0.25 * result.kernel
    axes = plot_result(result).axes
    titles = [a.get_title() for a in axes[:5]]
    assert titles == [
        "input",
        "result",
        "uncertainty, white is 0.2",
        "kernel, 9 x 9",
        "deviation, x 4",
    ]
    shown = np.asarray(axes[2].get_images()[0].get_array())
    assert (shown.min(), shown.max(), shown.shape) == (0, 1, (height, width))
    boxes = [a.get_position() for a in axes]
    for i, a in enumerate(boxes):
        assert min(a.x0, a.y0) >= 0
        assert max(a.x1, a.y1) <= 1
        assert all(a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0 for b in boxes[:i])


def test_labels(scene: Scene) -> None:
    axes = plot_result(a_result(scene()), gaussian_kernel(9, 1.0)).axes
    titles = [a.get_title() for a in axes]
    assert titles[:4] == ["input", "result", "kernel, 9 x 9", "true kernel, 9 x 9"]
    assert (titles[4], titles[9]) == ("t = 900", "t = 140")
    labels = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    assert labels == ["pass 0", "pass 1", "noise sigma 0.02"]
    assert axes[-1].get_yscale() == "log"


def test_given_kernel_has_no_film_strip_and_no_trace_no_curve(scene: Scene) -> None:
    assert len(plot_result(a_result(scene(), moving=False)).axes) == 4
    assert len(plot_result(a_result(scene(), steps=0)).axes) == 3
    assert len(a_result(scene(), steps=3).plot().axes) == 3 + 3 + 1


def test_many_stages_make_a_taller_figure(scene: Scene) -> None:
    few, many = (plot_result(a_result(scene(), stages=n)).get_size_inches() for n in (2, 10))
    assert many[1] > few[1]
    assert many[0] == few[0]


def test_large_images_are_drawn_small(scene: Scene) -> None:
    image = scene(20, 1500)
    drawn = plot_result(a_result(image)).axes[0].get_images()[0].get_array()
    assert drawn.shape == (16, 1200, 3)


def test_files_and_no_global_state(tmp_path: Path, scene: Scene) -> None:
    backend, loaded = matplotlib.get_backend(auto_select=False), "matplotlib.pyplot" in sys.modules
    save_figure(plot_result(a_result(scene())), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width > 800
    assert matplotlib.get_backend(auto_select=False) == backend
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_unwritable_figure(tmp_path: Path, scene: Scene) -> None:
    with pytest.raises(UserError, match="Cannot write"):
        save_figure(plot_result(a_result(scene(), steps=0)), tmp_path / "missing" / "a.png")


def test_contact_sheet(tmp_path: Path, scene: Scene) -> None:
    kernel = gaussian_kernel(9, 1.0)
    shapes = [(40, 40, 3), (30, 90, 1), (90, 30, 3)]
    rows = [
        SheetRow(f"a very long file name {i}.png", x, x, x, kernel, kernel, "20.00 dB", "25.00 dB", "MNC 0.9")
        for i, x in enumerate(scene(*shape) for shape in shapes)
    ]
    contact_sheet(rows, tmp_path / "sheet.png")
    contact_sheet(rows[:1], tmp_path / "one.png")
    sheet, one = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("sheet.png", "one.png"))
    assert sheet.shape[1] == one.shape[1]
    assert sheet.shape[0] > 2 * one.shape[0]
    assert sheet.std() > 20


@pytest.mark.slow
def test_figures_are_drawn_where_a_notebook_left_its_backend_behind(tmp_path: Path) -> None:
    program = (
        "from latentdem.output.figures import new_figure, save_figure; save_figure(new_figure(1, 1), 'a.png')"
    )
    environment = {**os.environ, "MPLBACKEND": "not installed"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "a.png").exists()
