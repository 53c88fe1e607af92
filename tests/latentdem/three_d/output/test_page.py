"""The page that shows a reconstruction: its contents, and its viewer in headless Chromium."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdem.errors import UserError
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.mesh.solid import Solid
from latentdem.three_d.output.page import check_page_name, page_of, write_page
from latentdem.three_d.output.result import Reconstruction
from latentdem.three_d.pictures import Picture

trimesh = pytest.importorskip("trimesh", reason="the extra three-d is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
POSES = torch.tensor([[0.0, 0.0, 0.0], [-0.2, math.pi / 2, 0.0]])
NAMES = ["in/front.png", "</script><b>side&.png"]


@pytest.fixture
def page() -> str:
    """The page of a red cuboid, seen from the front and from the right side."""
    size = 32
    mask = torch.zeros(size, size)
    mask[8:24, 12:20] = 1
    pixels = torch.stack([torch.ones(size, size), 1 - 2 * mask, 1 - 2 * mask])[None]
    views, targets = pixels.repeat(4, 1, 1, 1), ring(4, (0.0,))
    pictures = (Picture(pixels, True, mask), Picture(pixels, False))
    result = Reconstruction(
        pixels.repeat(2, 1, 1, 1),
        POSES,
        torch.tensor([1.0, 0.4]),
        targets,
        views,
        (True, False),
        (mask, None),
        {},
        {},
        pictures=pictures,
    )
    mesh = trimesh.creation.box((0.4, 0.4, 0.8))
    mesh.visual.vertex_colors = np.tile([200, 20, 20, 255], (len(mesh.vertices), 1))
    return page_of(result, Solid(mesh, torch.tensor([1.2, 0.0, 1.6]), 0.0), NAMES)


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_page_holds_the_mesh_the_cameras_and_the_pictures(page: str) -> None:
    data = data_of(page)
    mesh = data["mesh"]
    points, faces = decoded(mesh["points"], "<f4").reshape(-1, 3), decoded(mesh["faces"], "<u4").reshape(-1, 3)
    assert np.abs(points).max(0) == pytest.approx([0.2, 0.2, 0.4])
    assert faces.shape == (12, 3)
    assert decoded(mesh["colours"], "u1").reshape(-1, 3)[0].tolist() == [200, 20, 20]
    assert [view["kind"] for view in data["views"]] == ["picture"] * 2 + ["view"] * 4
    assert data["views"][1]["polar"] == pytest.approx(1.0)
    assert data["views"][1]["azimuth"] == pytest.approx(math.pi / 2)
    assert data["views"][1]["text"] == "azimuth +90°, elevation +11°, confidence 0.40"


def test_pictures_are_transparent_outside_of_the_object_if_it_was_cut_out(page: str) -> None:
    pictures = []
    for view in data_of(page)["views"]:
        head, _, body = view["picture"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(body))) as picture:
            pictures.append(np.asarray(picture))
    cut, whole, new = pictures[0], pictures[1], pictures[2]
    assert cut[0, 0, 3] == new[0, 0, 3] == 0
    assert cut[16, 16].tolist() == new[16, 16].tolist() == [255, 0, 0, 255]
    assert (whole[..., 3] == 255).all()


def test_names_of_pictures_are_text_and_nothing_is_loaded(page: str) -> None:
    assert "<b>" not in page
    assert data_of(page)["views"][1]["name"] == "script><b>side&.png"
    assert "front.png and 1 more" in page
    assert not re.search(r"https?:|@import|(src|href)=", page)


def test_a_page_ends_with_html() -> None:
    with pytest.raises(UserError, match=r"written as \.html, not '\.pdf'; rename cup\.pdf"):
        check_page_name(Path("cup.pdf"))


def test_a_page_that_cannot_be_written_is_reported(page: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("latentdem.three_d.output.page.page_of", lambda *arguments: page)
    with pytest.raises(UserError, match="Cannot write"):
        write_page(None, None, NAMES, tmp_path / "missing" / "cup.html")  # type: ignore[arg-type]


@pytest.fixture
def tab(page: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page from a file in a tab; it may ask for nothing else, and no script may fail."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    path, faults = tmp_path / "cup.html", []
    path.write_text(page, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def make(**options: Any) -> Any:
            tab = browser.new_context(reduced_motion="reduce", **options).new_page()
            tab.set_default_timeout(300_000)
            tab.on("pageerror", lambda error: faults.append(str(error)))
            tab.on("request", lambda r: r.url.startswith((path.as_uri(), "data:")) or faults.append(r.url))
            tab.goto(path.as_uri())
            tab.wait_for_function("() => gl && planes")
            return tab

        yield make
        browser.close()
    assert faults == []


def drawn(tab: Any) -> np.ndarray:
    """Pixels of the canvas after the next drawing."""
    tab.evaluate("() => new Promise((done) => { draw(); requestAnimationFrame(() => setTimeout(done)); })")
    with Image.open(io.BytesIO(tab.locator("#view").screenshot())) as shot:
        return np.asarray(shot.convert("RGB")).astype(int)


def red(pixels: np.ndarray) -> int:
    return int(((pixels[..., 0] > 150) & (pixels[..., 1] < 80)).sum())


@pytest.mark.slow
def test_the_object_is_drawn_and_seen_from_the_cameras(tab: Callable[..., Any]) -> None:
    page = tab()
    start = drawn(page)
    assert red(start) > 1000
    page.focus("#view")
    page.keyboard.press("2")
    page.wait_for_function("() => seen === 1")
    assert page.inner_text("#status").startswith("Seen from script><b>side&.png: azimuth +90°, elevation +11°")
    assert page.evaluate("eye.distance") == pytest.approx(1.6)
    page.fill("#share", "0")
    near = drawn(page)
    assert red(near) > 2 * red(start)
    page.keyboard.press("Tab")
    page.focus("#view")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("[seen, eye.azimuth]") == [None, pytest.approx(math.pi / 2 - math.pi / 36)]
    assert page.is_hidden("#compare")
    page.keyboard.press("0")
    assert (drawn(page) == start).mean() > 0.999


@pytest.mark.slow
def test_a_camera_is_chosen_by_a_click_and_a_drag_rotates(tab: Callable[..., Any]) -> None:
    page = tab()
    drawn(page)
    place = page.evaluate(
        "() => { const m = matrix(), ends = planes[0].ends.map((p) => onScreen(p, m));"
        "const mean = (axis) => ends.reduce((s, e) => s + e[axis], 0) / 4;"
        "const box = canvas.getBoundingClientRect();"
        "return [mean('x') + box.x, mean('y') + box.y]; }"
    )
    page.mouse.click(*place)
    page.wait_for_function("() => seen === 0")
    before = page.evaluate("eye")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(360, 300, steps=4)
    page.mouse.up()
    assert page.evaluate("eye.azimuth") < before["azimuth"] - 0.3
    assert page.evaluate("seen") is None
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"() => eye.distance > {before['distance']}")
    page.click("#views button:nth-child(3)")
    page.wait_for_function("() => seen === 4")
    assert page.get_attribute("#views button:nth-child(3)", "aria-pressed") == "true"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_everything_without_scrolling_sideways(tab: Callable[..., Any], scheme: str) -> None:
    page = tab(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    pixels = drawn(page)
    assert red(pixels) > 100
    assert bool(pixels[20, 20].sum() > 384) is (scheme == "light")
    page.tap("#pictures button:nth-child(2)")
    page.wait_for_function("() => seen === 1")
