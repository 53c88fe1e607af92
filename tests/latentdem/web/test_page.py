"""The server of the page, through the framework's test client."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.images import read_bytes, to_integers
from latentdem.io.kernels import read_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser

pytest.importorskip("starlette", reason="the extra web is not installed")
testclient = pytest.importorskip(
    "starlette.testclient", reason="the test client needs httpx2", exc_type=Exception
)

from latentdem.web import app as web_app  # noqa: E402
from latentdem.web.app import make_app  # noqa: E402
from latentdem.web.choices import Choices, Region  # noqa: E402
from latentdem.web.jobs import Desk  # noqa: E402
from latentdem.web.restorer import Restorer  # noqa: E402
from latentdem.web.server import open_port  # noqa: E402

ADDRESS = "http://127.0.0.1:8427"


class Blocked:
    """A restoration that goes on until it is released or cancelled."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.error: Exception = UserError("The kernel size 99 is larger than the image.")

    def __call__(self, photograph: Any, choices: Choices, watch: Any) -> Any:
        while not self.release.wait(0.01):
            watch.progress("kernel search", 1, 4)
        raise self.error


class Page:
    """A client of the page."""

    def __init__(self, restore: Any) -> None:
        self.desk = Desk(restore)
        self.client = testclient.TestClient(make_app(self.desk), base_url=ADDRESS)

    def send(self, data: bytes, **query: object) -> Any:
        return self.client.post("/jobs", params={"name": "photo.png", **query}, content=data)

    def job(self) -> dict[str, Any]:
        return self.client.get("/state").json()["job"]

    def end(self) -> dict[str, Any]:
        """The job once it has ended."""
        for _ in range(6000):
            if (job := self.job())["status"] != "running":
                return job
            time.sleep(0.01)
        raise TimeoutError

    def get(self, kind: str) -> Any:
        return self.client.get(f"/jobs/{self.job()['id']}/{kind}")


@pytest.fixture
def page() -> Iterator[Callable[[Any], Page]]:
    pages: list[Page] = []

    def make(restore: Any) -> Page:
        pages.append(Page(restore))
        return pages[-1]

    yield make
    for each in pages:
        each.desk.close()
        each.desk.clear()


@pytest.fixture
def photograph(scene: Callable[..., Tensor]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(to_integers(scene(), 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def restorer(tiny_prior: EmbeddedPrior) -> Restorer:
    cpu = torch.device("cpu")
    return Restorer(tiny_prior, load_kernel_denoiser(device=cpu), cpu, steps=2)


def test_a_photograph_is_restored_and_its_files_can_be_downloaded(
    page: Any, restorer: Restorer, photograph: bytes, tmp_path: Path
) -> None:
    here = page(restorer)
    assert here.send(photograph, kernel_size=9, quality="fast").status_code == 202
    job = here.end()
    assert (job["status"], job["message"], job["name"]) == ("done", "", "photo.png")
    assert (job["width"], job["height"], job["fraction"]) == (48, 40, 1.0)
    assert job["found"]["kernel_size"] == 9
    assert read_bytes(here.get("before").content).pixels.equal(read_bytes(photograph).pixels)
    assert read_bytes(here.get("result").content).pixels.shape == (1, 3, 40, 48)
    assert here.get("result").content == here.get("after").content
    assert 'filename="photo_deblurred.png"' in here.get("result").headers["content-disposition"]
    assert here.get("photograph").content == photograph
    (tmp_path / "kernel.npy").write_bytes(here.get("kernel_array").content)
    assert read_kernel(tmp_path / "kernel.npy").shape == (1, 1, 9, 9)
    report = here.get("report").json()
    assert (report["input"], report["settings"]["quality"]) == ("photo.png", "fast")
    assert job["looks"] >= 1
    with Image.open(io.BytesIO(here.get("look").content)) as look:
        assert look.size == (48, 40)


def test_the_kernel_can_be_found_in_a_region(page: Any, restorer: Restorer, photograph: bytes) -> None:
    here = page(restorer)
    here.send(photograph, kernel_size=9, quality="fast", region="8,4,100,33")
    assert here.end()["status"] == "done"
    settings = here.get("report").json()["settings"]
    assert (settings["region"], settings["kernel_known"], settings["quality"]) == (
        [8, 4, 40, 33],
        False,
        "fast",
    )


@pytest.mark.parametrize("region", ["", "8,4,100,33"])
def test_the_uncertainty_is_measured_where_it_is_asked_for(
    page: Any, restorer: Restorer, photograph: bytes, tmp_path: Path, region: str
) -> None:
    here = page(restorer)
    here.send(photograph, kernel_size=9, quality="fast", uncertainty="1", region=region)
    job = here.end()
    assert job["status"] == "done"
    (tmp_path / "map.npy").write_bytes(here.get("uncertainty_array").content)
    spread = np.load(tmp_path / "map.npy")
    assert spread.shape == (40, 48)
    assert spread.min() < job["found"]["uncertainty_white"] <= spread.max() + 1e-4
    assert here.get("report").json()["uncertainty"] > 0
    with Image.open(io.BytesIO(here.get("uncertainty").content)) as shown:
        assert (shown.mode, shown.size) == ("L", (48, 40))
    name = 'filename="photo_deblurred_uncertainty.npy"'
    assert name in here.get("uncertainty_array").headers["content-disposition"]


def test_one_photograph_is_restored_at_a_time(page: Any, photograph: bytes) -> None:
    blocked = Blocked()
    here = page(blocked)
    first = here.send(photograph).json()["id"]
    refused = here.send(photograph, name="second.png")
    assert refused.status_code == 409
    assert refused.json()["message"] == "photo.png is being restored; wait until it is done, or cancel it."
    assert (here.job()["id"], here.job()["status"]) == (first, "running")
    blocked.release.set()
    assert here.end()["message"] == str(blocked.error)
    second = here.send(photograph, name="second.png")
    assert second.status_code == 202
    gone = here.client.get(f"/jobs/{first}/before")
    assert gone.status_code == 404
    assert gone.json()["message"] == "This photograph is not here any more; another one took its place."


def test_a_run_can_be_cancelled_once(page: Any, photograph: bytes) -> None:
    here = page(Blocked())
    cancel = f"/jobs/{here.send(photograph).json()['id']}/cancel"
    assert here.client.post(cancel).status_code == 202
    assert here.end()["status"] == "cancelled"
    assert here.client.post(cancel).status_code == 409
    assert here.get("result").status_code == 404


def test_a_cancelled_restoration_ends_at_its_next_step(
    page: Any, restorer: Restorer, photograph: bytes
) -> None:
    def cancelled(picture: Any, choices: Choices, watch: Any) -> Any:
        watch.cancel()
        return restorer(picture, choices, watch)

    here = page(cancelled)
    here.send(photograph, kernel_size=9)
    assert here.end()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("data", "query", "sentence"),
    [
        (b"", {}, "The image is empty."),
        (b"no picture", {}, "The image is not an image of a known format; give a JPEG, PNG or TIFF file."),
        (None, {"kernel_size": "large"}, "The kernel size is a whole number from 0 up, not 'large'."),
        (None, {"seed": "-1"}, "The seed is a whole number from 0 up, not '-1'."),
        (None, {"region": "1,2"}, "A region is left, top, width and height, not '1,2'."),
    ],
)
def test_what_cannot_be_restored_is_refused_with_a_sentence(
    page: Any, photograph: bytes, data: bytes | None, query: dict[str, str], sentence: str
) -> None:
    here = page(Blocked())
    answer = here.send(photograph if data is None else data, **query)
    assert (answer.status_code, answer.json()["message"]) == (400, sentence)
    assert here.job() is None


@pytest.mark.parametrize(
    ("query", "begin"),
    [
        ({"kernel_size": 99}, "The kernel size 99 is larger than the image (48 x 40); give at most 40."),
        ({"quality": "perfect"}, "Unknown quality 'perfect'; give auto, fast, balanced or best."),
        ({"region": "40,0,20,40"}, "The region is too small to find a kernel in;"),
    ],
)
def test_choices_that_do_not_fit_end_the_run_with_a_sentence(
    page: Any, restorer: Restorer, photograph: bytes, query: dict[str, object], begin: str
) -> None:
    here = page(restorer)
    here.send(photograph, **query)
    job = here.end()
    assert job["status"] == "failed"
    assert job["message"].startswith(begin)


def test_a_defect_is_told_and_the_next_photograph_taken(
    page: Any, photograph: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = Blocked()
    blocked.error = RuntimeError("out of\nmemory")
    blocked.release.set()
    here = page(blocked)
    here.send(photograph)
    assert here.end()["message"] == "The restoration failed: RuntimeError: out of memory"
    assert "The restoration of photo.png failed." in caplog.text
    assert here.send(photograph).status_code == 202


def test_a_file_that_is_too_large_is_refused(
    page: Any, photograph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_app, "MAX_UPLOAD", 2**20)
    here = page(Blocked())
    told = here.send(b"x" * (2**20 + 1))
    streamed = here.client.post("/jobs", content=(b"x" * 2**19 for _ in range(3)))
    for answer in (told, streamed):
        assert (answer.status_code, answer.json()["message"][:30]) == (413, "The file is larger than 1 MB; ")
    assert here.job() is None


def test_names_of_uploads_stay_names(page: Any, restorer: Restorer, photograph: bytes) -> None:
    here = page(restorer)
    here.send(photograph, kernel_size=9, quality="fast", name='../..\\a"b<c>\n.jpeg')
    job = here.end()
    assert job["name"] == 'a"b<c>\n.jpeg'
    assert job["files"]["result"] == "a_b_c__deblurred.png"
    assert here.get("..%2f..%2fetc%2fpasswd").status_code == 404


def test_what_the_reader_notes_is_shown(page: Any, scene: Any) -> None:
    pictures = [Image.fromarray(to_integers(scene(seed=seed), 8)) for seed in range(2)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "TIFF", save_all=True, append_images=pictures[1:])
    here = page(Blocked())
    here.send(buffer.getvalue(), name="two.tif")
    assert here.job()["notes"] == ["The image holds 2 pictures; only the first one is read."]


def test_events_tell_the_state_and_end_with_the_server(page: Any, photograph: bytes) -> None:
    here = page(Blocked())
    here.send(photograph)
    threading.Timer(0.3, here.desk.close).start()
    answer = here.client.get("/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    first = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
    assert first["job"]["status"] == "running"
    assert first["job"]["stage"] in ("starting", "kernel search")  # of a thread that has just begun


@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Origin": "null"}])
def test_other_pages_cannot_start_anything(page: Any, photograph: bytes, headers: dict[str, str]) -> None:
    here = page(Blocked())
    assert here.client.post("/jobs", content=photograph, headers=headers).status_code == 403
    assert here.job() is None
    assert here.client.post("/jobs", content=photograph, headers={"Origin": ADDRESS}).status_code == 202


def test_other_names_of_the_server_are_refused(page: Any) -> None:
    assert page(Blocked()).client.get("/state", headers={"Host": "elsewhere.example"}).status_code == 400


def test_the_page_asks_for_nothing_outside(page: Any) -> None:
    here = page(Blocked())
    answer = here.client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    texts = [answer.text, *(here.client.get(f"/static/page.{kind}").text for kind in ("css", "js"))]
    assert not any("//" + host in text for text in texts for host in ("cdn", "fonts", "unpkg"))
    assert "https:" not in "".join(texts)


def test_a_region_is_cut_to_the_photograph() -> None:
    assert Region(10, 20, 100, 200).rows_and_columns(80, 60) == (slice(20, 80), slice(10, 60))


def test_a_taken_port_is_a_sentence() -> None:
    with open_port(0) as listener:
        port = listener.getsockname()[1]
        assert listener.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UserError, match=rf"Port {port} cannot be used: .*; choose another with --port\."):
            open_port(port)


def test_the_photograph_is_the_source_of_the_result(restorer: Restorer, photograph: bytes) -> None:
    class Silent:
        def progress(self, stage: str, done: int, total: int) -> None: ...

        def wants_look(self) -> bool:
            return False

    source = read_bytes(photograph)
    result = restorer(source, Choices(9, quality="fast"), Silent())
    assert isinstance(result.image, Image.Image)
    assert np.asarray(result.image).shape == (40, 48, 3)
