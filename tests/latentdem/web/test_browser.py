"""The page in a real browser, headless Chromium, against the real server."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from latentdem.io.images import write_image

pytest.importorskip("starlette", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

PATIENCE = 300_000  # milliseconds; the machine may be busy
SERVE = "import sys; from latentdem.cli import main; sys.argv[0] = 'latentdem'; main()"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server with the embedded prior and few steps, which ends properly when interrupted."""
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    process = subprocess.Popen(
        [*command, "-c", SERVE, "serve", "--port", "0", "--steps", "2", "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found
    yield found[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a tab; every request must go to the server, and no script may fail."""
    contexts, faults = [], []

    def make(**options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: r.url.startswith((address, "blob:")) or faults.append(r.url))
        page.goto(address)
        return page

    yield make
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def photo(tmp_path: Path, scene: Callable[..., Tensor]) -> Path:
    path = tmp_path / "photo.png"
    write_image(path, scene(48, 64))
    return path


def restore(page: Any, photo: Path, size: int = 9) -> None:
    page.set_input_files("#file", photo)
    page.fill("#kernel_size", str(size))
    page.select_option("#quality", "fast")
    page.click("#restore")


def wait_for(page: Any, selector: str, text: str) -> None:
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE)


def end(page: Any) -> None:
    """Waits until nothing is running, whatever the tests before left."""
    while (page.request.get(f"{page.url}state").json()["job"] or {}).get("status") == "running":
        page.wait_for_timeout(100)


def test_upload_progress_result_and_another_seed(tab: Any, photo: Path) -> None:
    page = tab()
    restore(page, photo)
    page.wait_for_selector("#run")
    page.wait_for_selector("#kernel[src*=look_kernel]")
    page.wait_for_selector("#downloads")
    assert "Blur kernel, 9 \u00d7 9 pixels" in page.inner_text("#kernel_caption")
    with page.expect_download() as download:
        page.click("#get_result")
    assert download.value.suggested_filename == "photo_deblurred.png"
    with Image.open(download.value.path()) as restored:
        assert restored.size == (64, 48)
    for name in ("kernel_picture", "kernel_array", "report"):
        with page.expect_download() as download:
            page.click(f"#get_{name}")
        assert download.value.suggested_filename.startswith("photo_deblurred_")
    page.focus("#split")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("after.style.clipPath").replace(" ", "") == "inset(0px0px0px49%)"
    assert page.is_hidden("#show_uncertainty")
    page.check("#uncertainty")
    page.click("#next_seed")
    page.wait_for_selector("#cancel")
    page.wait_for_selector("#downloads")
    assert page.input_value("#seed") == "1"
    page.check("#uncertain")
    wait_for(page, "#caption", "right the standard deviation of the error: white is ")
    page.wait_for_function("() => after.complete && after.naturalWidth === 64")
    assert page.evaluate("new URL(after.src).pathname").endswith("/uncertainty")
    with page.expect_download() as download:
        page.click("#get_uncertainty_array")
    assert download.value.suggested_filename == "photo_deblurred_uncertainty.npy"
    assert page.evaluate("async () => (await fetch(get_report.href)).json()")["settings"]["seed"] == 1


def test_cancel_and_two_tabs(tab: Any, photo: Path) -> None:
    first, second = tab(), tab()
    end(first)
    restore(first, photo, 31)
    first.wait_for_selector("#cancel")
    wait_for(second, "#status", "photo.png is being restored. One photograph is restored at a time.")
    assert second.is_disabled("#seed")
    answer = second.request.post(f"{second.url}jobs", data=photo.read_bytes())
    assert (answer.status, answer.json()["message"][:29]) == (409, "photo.png is being restored; ")
    second.click("#cancel")
    for page in (first, second):
        wait_for(page, "#status", "Cancelled; the photograph is as it was.")
        assert page.is_enabled("#restore")


def test_a_bad_file_is_told(tab: Any, tmp_path: Path) -> None:
    page = tab()
    end(page)
    bad = tmp_path / "notes.png"
    bad.write_text("no picture")
    page.set_input_files("#file", bad)
    page.click("#restore")
    wait_for(page, "#message", "The image is not an image of a known format; give a JPEG, PNG or TIFF file.")
    assert page.get_attribute("#message", "role") == "alert"


def test_a_region_is_drawn(tab: Any, photo: Path) -> None:
    page = tab()
    end(page)
    page.set_input_files("#file", photo)
    page.wait_for_function("() => before.naturalWidth === 64")
    box = page.locator("#before").bounding_box()
    scale = min(box["width"] / 64, box["height"] / 48)
    left, top = box["x"] + (box["width"] - 64 * scale) / 2, box["y"] + (box["height"] - 48 * scale) / 2
    page.mouse.move(left + 10 * scale, top + 8 * scale)
    page.mouse.down()
    page.mouse.move(left + 50 * scale, top + 44 * scale)
    page.mouse.up()
    drawn = [float(page.input_value(f"#{edge}")) for edge in ("left", "top", "width", "height")]
    assert drawn == pytest.approx([10, 8, 40, 36], abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_the_page_without_scrolling_sideways(tab: Any, photo: Path, scheme: str) -> None:
    page = tab(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.set_input_files("#file", photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        assert (sum(shot.convert("RGB").getpixel((2, 2))) > 384) is (scheme == "light")


def test_the_keyboard_reaches_everything(tab: Any, photo: Path) -> None:
    page = tab()
    end(page)
    page.set_input_files("#file", photo)
    assert page.evaluate("document.activeElement.id") == "restore"
    page.focus("#kernel_size")
    reached = []
    for _ in range(8):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert reached == ["kernel_size", "seed", "quality", "uncertainty", "SUMMARY", "restore", "other", "BODY"]
