from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem import Blur, LatentDEM, MaximumLikelihood, Pass, Proximal, UserError
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.search import layout
from latentdem.solver.checkpoint import Checkpoint
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Hooks, run_passes

from ..payloads import WRITERS, Payload

Scene = Callable[..., Tensor]


class Stop(Exception):
    """Stands for whatever ends a process."""


def stop_at(step: int) -> Callable[..., None]:
    """A progress that raises at this call."""
    left = iter(range(step, -1, -1))

    def progress(stage: str, done: int, total: int) -> None:
        if next(left) == 0:
            raise Stop

    return progress


@pytest.fixture(autouse=True)
def _write_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "interval", 0.0)


def deblur(y: Tensor, prior: EmbeddedPrior, folder: Path | None = None, **options: Any) -> latentdem.Result:
    defaults = {"kernel_size": 5, "steps": 4, "device": "cpu", "seed": 1}
    return latentdem.deblur(y, prior=prior, checkpoint=folder, **{**defaults, **options})


def same(first: latentdem.Result, second: latentdem.Result) -> bool:
    steps = list(zip(first.trace, second.trace, strict=True))
    return (
        torch.equal(first.image, second.image)
        and torch.equal(first.kernel, second.kernel)
        and all((a.stage, a.t) == (b.stage, b.t) and torch.equal(a.parameters, b.parameters) for a, b in steps)
    )


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        # Six calls are from the start of the search; the others stop in several of its runs of the solver.
        ({"steps": 2, "boundary": "valid"}, (3, 12, 30, 47)),
        ({"e_step": "posterior", "steps": 5}, (0, 3)),
        ({"kernel": gaussian_kernel(5, 1), "boundary": "valid"}, (2,)),
    ],
)
def test_interrupted_runs_end_like_others(
    scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path, options: dict[str, Any], stops: tuple[int, ...]
) -> None:
    y, folder = torch.cat([scene(16, 18), scene(16, 18, seed=1)]), tmp_path / "kept"
    whole = deblur(y, tiny_prior, **options)
    for step in stops:
        with pytest.raises(Stop):
            deblur(y, tiny_prior, folder, progress=stop_at(step), **options)
    seen: list[int] = []
    resumed = deblur(y, tiny_prior, folder, progress=lambda _, done, total: seen.append(done), **options)
    assert same(whole, resumed)
    assert seen == sorted(set(seen))
    assert not folder.exists()


def test_finished_passes_without_a_periodic_boundary_give_the_same_bits(
    scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path
) -> None:
    """The least squares after a pass do not start from those of the pass before, which a file does not have."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 4:-4, 4:-4] = 1
    measurement = Measurement(scene(32, 32), torch.tensor([0.005]), mask, circular=False)
    images = []
    for folder in (None, "kept", "kept"):  # a whole run, one that is saved, and one that is read
        hooks = Hooks(checkpoint=folder and Checkpoint(tmp_path / folder, {}))
        operator = Blur(5, mask=mask, fixed=True)
        result = run_passes(
            LatentDEM(tiny_prior, operator, Proximal()),
            (Pass(3), Pass(4, 600), Pass(4, 600)),
            measurement,
            gaussian_kernel(5, 1),
            torch.Generator().manual_seed(0),
            consistency=MaximumLikelihood(),
            hooks=hooks,
        )
        images.append(result.image)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_finished_steps_are_not_made_again(
    scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    predict = tiny_prior.predict_noise
    monkeypatch.setattr(tiny_prior, "predict_noise", lambda z, t: calls.append(t) or predict(z, t))
    y, options = scene(20, 24), {"kernel": gaussian_kernel(5, 1), "steps": 6}
    with pytest.raises(Stop):
        deblur(y, tiny_prior, tmp_path / "kept", progress=stop_at(3), **options)
    assert len(calls) == 4
    calls.clear()
    deblur(y, tiny_prior, tmp_path / "kept", **options)
    assert len(calls) == 3  # the step that was interrupted after its work was not written yet


def test_tiles(
    scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "WORKING_SIZE", 64)
    monkeypatch.setattr(layout, "TILE_SIZE", 64)
    y, options = scene(64, 100), {"kernel": gaussian_kernel(5, 1), "boundary": "valid", "steps": 2}
    whole = deblur(y, tiny_prior, **options)
    with pytest.raises(Stop):
        deblur(y, tiny_prior, tmp_path / "kept", progress=stop_at(3), **options)
    assert same(whole, deblur(y, tiny_prior, tmp_path / "kept", **options))


def test_other_settings_and_images_are_refused(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    y, folder = scene(20, 24), tmp_path / "kept"
    with pytest.raises(Stop):
        deblur(y, tiny_prior, folder, progress=stop_at(1))
    with pytest.raises(UserError, match=r"with other settings .*seed 1 instead of 2"):
        deblur(y, tiny_prior, folder, seed=2)
    with pytest.raises(UserError, match=r"with other settings .*image and kernel"):
        deblur(-y, tiny_prior, folder)


def test_a_damaged_checkpoint_is_refused(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    y, folder = scene(20, 24), tmp_path / "kept"
    with pytest.raises(Stop):
        deblur(y, tiny_prior, folder, kernel=gaussian_kernel(5, 1), progress=stop_at(2))
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged; delete the folder"):
        deblur(y, tiny_prior, folder, kernel=gaussian_kernel(5, 1))
    payload = Payload(tmp_path / "ran")
    for write in WRITERS:
        write(file, payload)
        with pytest.raises(UserError, match="is damaged; delete the folder"):
            deblur(y, tiny_prior, folder, kernel=gaussian_kernel(5, 1))
    assert not payload.trace.exists()


def test_other_files_in_the_folder_stay(scene: Scene, tiny_prior: EmbeddedPrior, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    deblur(scene(20, 24), tiny_prior, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
