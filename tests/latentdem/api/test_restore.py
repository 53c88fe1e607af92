"""`restore` and its command: dispatch, equality with deblur, files, and one sentence for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem import UserError
from latentdem.api.registry import OPERATORS, completed, parse
from latentdem.api.restore import restore
from latentdem.io.images import read_image, write_image
from latentdem.metrics import psnr
from latentdem.operators import AntiAliasing, CameraResponse, DiskKernels, Function, Gamma, Parameter
from latentdem.priors import EmbeddedPrior
from latentdem.solver.checkpoint import Checkpoint

Scene = Callable[..., Tensor]
SHARP = Path(__file__).resolve().parents[3] / "examples" / "sharp.png"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_prior: EmbeddedPrior) -> EmbeddedPrior:
    """Every prior that is loaded is the tiny one."""
    for module in ("api.restore", "api.deblur", "priors"):
        monkeypatch.setattr(f"latentdem.{module}.load_prior", lambda *_: tiny_prior)
    return tiny_prior


def test_blur_equals_deblur(tiny: EmbeddedPrior, scene: Scene) -> None:
    y, options = scene(20, 24), {"steps": 2, "noise_sigma": 0.02, "boundary": "circular"}
    found = restore(y, "blur:size=9", **options)
    expected = latentdem.deblur(y, 9, **options)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.parameters["kernel"], expected.kernel)


@pytest.mark.parametrize(
    "operator",
    [
        *("blur:size=9", "gaussian:size=9", "disk:size=7,radius=2", "saturation:size=9"),
        *("superresolution:factor=2", "denoise", "inpaint", "varying:size=5", "gamma", "response:size=5"),
    ],
)
def test_a_batch_gives_the_results_of_single_runs(tiny: EmbeddedPrior, scene: Scene, operator: str) -> None:
    y, options = torch.cat([scene(26, 28), -scene(26, 28)]), {"steps": 2, "boundary": "valid"}
    together = restore(y, operator, **options)
    for i, found in enumerate(together):
        alone = restore(y[i : i + 1], operator, **options)
        assert torch.equal(found.noise_sigma, alone.noise_sigma)
        torch.testing.assert_close(found.tensor, alone.tensor, rtol=0, atol=1e-3)
        for name, value in alone.parameters.items():
            torch.testing.assert_close(found.parameters[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_every_name_restores_blindly(tiny: EmbeddedPrior, scene: Scene, name: str) -> None:
    settings = {
        "blur": ":size=9",
        "saturation": ":size=9",
        "gaussian": ":size=9",
        "superresolution": ":factor=2",
        "varying": ":size=5",
    }
    found = restore(scene(26, 28), name + settings.get(name, ""), steps=2, noise_sigma=0.02)
    factor = 2 if name == "superresolution" else 1
    assert found.image.shape == (1, 3, 26 * factor, 28 * factor)
    assert found.image.isfinite().all()
    assert set(found.parameters) == set(OPERATORS[name].unknowns)
    assert found.trace
    found.plot()


def test_what_is_known_stays(tiny: EmbeddedPrior, scene: Scene) -> None:
    y = scene(26, 28, channels=1)
    found = restore(y, "gaussian:sigma_x=2,sigma_y=1", steps=2)
    assert found.image.shape == y.shape
    assert found.parameters["sigma_x"].item() == pytest.approx(2, rel=0.02)
    assert found.parameters["sigma_y"].item() == pytest.approx(1, rel=0.02)
    operator = CameraResponse(9)
    found = restore(y, operator, {"gamma": 2.4}, steps=2)
    assert not operator.fixed
    assert found.parameters["gamma"].item() == pytest.approx(2.4)
    assert found.parameters["sigma"].item() != pytest.approx(9 / 8)
    assert found.settings["known"] == ["gamma"]


def test_a_batch_gives_what_single_measurements_give(tiny: EmbeddedPrior, scene: Scene) -> None:
    y = torch.cat([scene(20, 24, seed=1), scene(20, 24, seed=2)])
    both = restore(y, Gamma(), steps=2, noise_sigma=0.02)
    for i in range(2):
        one = restore(y[i : i + 1], Gamma(), steps=2, noise_sigma=0.02)
        torch.testing.assert_close(both.image[i : i + 1], one.image, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            both.parameters["gamma"][i : i + 1], one.parameters["gamma"], rtol=1e-3, atol=0
        )


def test_a_perfect_prior_gives_the_parameter(
    oracle: Callable[..., Any],
    lossy: Callable[[Tensor], Any],
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = 0.9 * scene()
    monkeypatch.setattr("latentdem.api.restore.load_prior", lambda prior, *_: prior)

    def contrast(x: Tensor, scale: Tensor) -> Tensor:
        return scale.view(-1, 1, 1, 1) * x

    operator = Function(contrast, {"scale": Parameter(1.0)})
    found = restore(0.6 * x, operator, prior=oracle(x), noise_sigma=0.01, steps=20)
    assert found.parameters["scale"].item() == pytest.approx(0.6, abs=0.01)
    torch.testing.assert_close(found.image, x, atol=0.05, rtol=0)
    disk = DiskKernels().kernel(torch.tensor([[2.5]]), 13)
    found = restore(
        ext.blur(x, disk), "disk:size=13", prior=lossy(x), noise_sigma=0.01, boundary="circular", steps=15
    )
    assert found.parameters["radius"].item() == pytest.approx(2.5, rel=0.05)


def test_progress_ends_at_its_total(tiny: EmbeddedPrior, scene: Scene) -> None:
    seen: list[tuple[int, int]] = []
    restore(
        scene(20, 24),
        "gamma",
        steps=3,
        noise_sigma=0.02,
        progress=lambda _, done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1]
    assert all(a[0] < b[0] for a, b in pairwise(seen))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fog", "There is no operator 'fog'; give one of blur, gaussian"),
        ("disk:width=3", "no parameter 'width'; it has size, radius"),
        ("disk:radius", "no parameter 'radius'"),
        ("disk:radius=big", "radius of the operator disk is a number above 0, not 'big'"),
        ("disk:radius=-1", "not '-1'"),
        ("superresolution", "needs factor; give 2, 4 or 8"),
        ("superresolution:factor=3", "2, 4 or 8, not '3'"),
        ("gaussian:sigma_x=2", "give sigma_y, too, or none"),
        ("inpaint:shape=circle", "strokes or rectangle, not 'circle'"),
    ],
)
def test_mistakes_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        completed(*parse(text))
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")


def test_a_mask_is_taken_in_every_form(tiny: EmbeddedPrior, scene: Scene) -> None:
    counts = np.ones((40, 48), np.uint8)
    counts[10:20, 10:30] = 0
    forms = [
        counts,
        counts * 255,
        counts > 0,
        torch.from_numpy(counts)[None, None],
        Image.fromarray(counts * 255),
    ]
    found = [restore(scene(), "inpaint", {"mask": mask}, noise_sigma=0.02, steps=2) for mask in forms]
    assert torch.equal(found[0].parameters["mask"].squeeze(), torch.from_numpy(counts).float())
    for other in found[1:]:
        assert torch.equal(other.image, found[0].image)


def test_a_parameter_of_the_users_operator_may_be_called_mask(tiny: EmbeddedPrior, scene: Scene) -> None:
    weighted = Function(lambda x, mask: x * mask.view(-1, 3, 1, 1), {"mask": Parameter([1.0, 1.0, 1.0])})
    found = restore(scene(20, 24), weighted, {"mask": torch.tensor([1.0, 0.9, 0.8])}, noise_sigma=0.02, steps=2)
    assert found.parameters["mask"].flatten().tolist() == pytest.approx([1.0, 0.9, 0.8])


@pytest.mark.parametrize(
    ("operator", "known", "sentence"),
    [
        ("disk", {"radius": "big"}, "The radius of the operator disk is a number above 0, not 'big'"),
        ("disk", {"radius": None}, "is a number above 0, not None"),
        ("disk", {"radius": -1.0}, "is a number above 0, not -1.0"),
        ("disk", {"radius": np.ones(2)}, "is one number, not array"),
        ("gamma", {"gamma": torch.ones(2)}, "is one number, not tensor"),
        ("disk:size=9", {"radius": 5}, "9 x 9 pixels has no room for the radius 5; give a larger size"),
        ("varying", {"kernels": "nowhere.npy"}, "nowhere.npy is not a NumPy file"),
    ],
)
def test_mistakes_of_known_parameters_are_one_sentence(
    tiny: EmbeddedPrior, scene: Scene, operator: str, known: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        restore(scene(), operator, known, noise_sigma=0.02, steps=2)
    assert sentence in str(error.value)


@pytest.mark.parametrize("radius", ["2", 2, np.float32(2), np.array([2.0]), torch.tensor([[2.0]])])
def test_a_known_number_is_taken_in_every_form(tiny: EmbeddedPrior, scene: Scene, radius: Any) -> None:
    found = restore(scene(20, 24), "disk:size=7", {"radius": radius}, noise_sigma=0.02, steps=2)
    assert found.parameters["radius"].tolist() == [2.0]


def test_mistakes_of_the_measurement(tiny: EmbeddedPrior, scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Every pixel is clipped"):
        restore(torch.ones(1, 3, 32, 32), "saturation:size=9", noise_sigma=0.02, value_range=(-1, 1))
    write_image(tmp_path / "mask.png", scene(20, 20, 1).sign())
    with pytest.raises(UserError, match="20 x 20 pixels and the image 48 x 40"):
        restore(scene(), f"inpaint:mask={tmp_path / 'mask.png'}", noise_sigma=0.02)
    (tmp_path / "bad.npy").write_text("no array")
    with pytest.raises(UserError, match="NumPy file"):
        restore(scene(), f"varying:kernels={tmp_path / 'bad.npy'}", noise_sigma=0.02)
    with pytest.raises(UserError, match="At least 2 steps"):
        restore(scene(), "gamma", steps=1)


def test_command_writes_files(cli: Any, here: Path, tiny: EmbeddedPrior) -> None:
    out = cli.run("restore", "../photo.png", "--operator", "inpaint", "--steps", 2, "--extras", "extras").stdout
    assert cli.names(here.parent) == ["here", "photo.png", "photo_restored.png"]
    assert cli.names(here / "extras") == [
        "photo_restored_figure.png",
        "photo_restored_mask.npy",
        "photo_restored_report.json",
    ]
    assert np.load("extras/photo_restored_mask.npy").shape == (1, 40, 48)
    report = json.loads(Path("extras/photo_restored_report.json").read_text())
    assert report["settings"]["operator"] == "inpaint"
    assert report["settings"]["shape"] == "strokes"
    assert "noise sigma" in out
    out = cli.run("restore", "../photo.png", "--operator", "gamma", "--steps", 2, "-o", "a.png").stdout
    assert "gamma" in out
    assert cli.names(here) == ["a.png", "extras"]


def test_command_restores_a_folder(cli: Any, here: Path, tiny: EmbeddedPrior, scene: Scene) -> None:
    (here / "photos").mkdir()
    for name in ("a", "b"):
        write_image(here / "photos" / f"{name}.png", scene(20, 24))
    (here / "photos" / "bad.png").write_text("broken")
    arguments = ["restore", "photos", "--operator", "gamma", "--steps", 2]
    result = cli.run(*arguments, status=4)
    assert "bad.png is not an image" in result.stderr
    assert cli.names(here / "photos_restored") == ["a_restored.png", "b_restored.png"]
    assert "2 of the 3 results exist already" in cli.sentence(*arguments)


def test_command_restores_photographs_of_one_size_together(
    cli: Any, here: Path, tiny: EmbeddedPrior, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "photos").mkdir()
    for name, size in (("a", (20, 24)), ("b", (20, 24)), ("c", (24, 20))):
        write_image(here / "photos" / f"{name}.png", scene(*size))
    counts = []

    def counted(image: Tensor, *arguments: Any, **options: Any) -> Any:
        counts.append(len(image))
        return restore(image, *arguments, **options)

    monkeypatch.setattr(latentdem, "restore", counted)
    cli.run("restore", "photos", "--operator", "gamma", "--steps", 2, "--batch-size", 2)
    assert counts == [2, 1]
    assert cli.names(here / "photos_restored") == ["a_restored.png", "b_restored.png", "c_restored.png"]


@pytest.mark.parametrize("operator", ["gamma", "disk:size=5", "inpaint"])
def test_interrupted_run_resumes_with_the_same_bits(
    tiny: EmbeddedPrior, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr(Checkpoint, "interval", 0.0)
    options = {"noise_sigma": 0.02, "steps": 4, "device": "cpu", "prior": tiny}
    expected = restore(scene(20, 24), operator, **options)
    calls: list[float] = []

    def stop(stage: str, done: int, total: int) -> None:
        calls.append(done / total)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(scene(20, 24), operator, checkpoint=tmp_path / "kept", progress=stop, **options)
    with pytest.raises(UserError, match="seed 0 instead of 1"):
        restore(scene(20, 24), operator, checkpoint=tmp_path / "kept", seed=1, **options)
    result = restore(scene(20, 24), operator, checkpoint=tmp_path / "kept", **options)
    assert torch.equal(result.image, expected.image)
    assert not (tmp_path / "kept").exists()


def test_command_names_mistakes_before_the_run(cli: Any, here: Path) -> None:
    assert "no operator 'fog'" in cli.sentence("restore", "../photo.png", "--operator", "fog")
    assert "overwritten" in cli.sentence("restore", "../photo.png", "--operator", "gamma", "-o", "../photo.png")


def test_help_lists_the_operators(cli: Any) -> None:
    text = " ".join(cli.run("restore", "--help").stdout.split())
    for name, entry in OPERATORS.items():
        assert f"{name}: " in text
        assert all(key in text for key in (*entry.settings, *entry.unknowns))


def _hidden(x: Tensor, mask: Tensor) -> Tensor:
    return mask * x - (1 - mask)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["known", "blind"])
@pytest.mark.parametrize("name", ["disk", "superresolution", "denoise", "inpaint", "response"])
def test_the_embedded_prior_improves_on_the_input(name: str, kind: str) -> None:
    x = F.interpolate(read_image(SHARP).pixels, (96, 96), mode="bicubic", antialias=True).clamp(-1, 1)
    noise = 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    box = torch.ones(1, 1, 96, 96)
    box[..., 30:50, 20:60] = 0
    operator, known, y = {
        "disk": ("disk:size=13", {"radius": 3.0}, ext.blur(x, DiskKernels().kernel(torch.tensor([[3.0]]), 13))),
        "superresolution": (
            "superresolution:factor=2",
            {"sigma": 1.0},
            ext.blur(x, AntiAliasing(2).kernel(torch.tensor([[1.0]]), 12))[..., ::2, ::2],
        ),
        "denoise": ("denoise", {"sigma": 0.2}, x + 9 * noise),
        "inpaint": ("inpaint:shape=rectangle", {"mask": box[0]}, _hidden(x, box)),
        "response": (
            "response:size=13",
            {"sigma": 2.0, "gamma": 2.2},
            CameraResponse(13).apply(x, sigma=torch.tensor([2.0]), gamma=torch.tensor([2.2])),
        ),
    }[name]
    y = y + noise[..., : y.shape[-2], : y.shape[-1]]
    found = restore(
        y,
        operator,
        known if kind == "known" else None,
        noise_sigma=0.2 if name == "denoise" else 0.02,
        boundary="circular",
    )  # type: ignore[arg-type]
    before = F.interpolate(y, x.shape[-2:], mode="bicubic")
    assert psnr(found.image, x) > psnr(before, x) + 0.5
