"""The training programs, a few steps on tiny pictures: they resume, and the package loads what they write."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latentdem.priors import load_prior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.priors.kernel_diffusion import KernelDiffusion


def run(program, *arguments):
    result = CliRunner().invoke(program.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def step(folder) -> int:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


@pytest.fixture
def drawn(train_kernel_denoiser, tmp_path, monkeypatch):
    """A folder with a training set of kernels of two sizes."""
    monkeypatch.setattr(train_kernel_denoiser, "SIZES", (9, 12))
    out = tmp_path / "out"
    run(train_kernel_denoiser, "kernels", "--out", out, "--count", 64, "--workers", 1)
    return out


def test_kernels_are_drawn(drawn):
    with np.load(drawn / "kernels.npz") as file:
        assert {name: file[name].shape for name in file.files} == {"9": (64, 9, 9), "12": (64, 12, 12)}
        for name in file.files:
            kernels = file[name].astype(np.float32)
            assert kernels.min() >= 0
            np.testing.assert_array_equal(kernels.max((1, 2)), 1)


def test_kernel_denoiser_trains_resumes_and_is_loaded(train_kernel_denoiser, drawn, tmp_path):
    train = (train_kernel_denoiser, "train", "--out", drawn, "--pixels", 512)
    run(*train, "--steps", 2)
    first = load_kernel_denoiser(drawn / "model").state_dict()
    assert step(drawn / "run") == 2
    run(*train, "--steps", 3)
    assert step(drawn / "run") == 3
    second = load_kernel_denoiser(drawn / "model").state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    run(train_kernel_denoiser, "export", "--out", drawn, "--weights", tmp_path / "weights")
    shipped = load_kernel_denoiser(tmp_path / "weights").state_dict()
    for name, value in second.items():
        torch.testing.assert_close(shipped[name].float(), value.half().float())


def test_kernel_denoiser_is_evaluated(train_kernel_denoiser, tmp_path):
    """The one that ships, at one size: better than the noisy kernels and the linear filter."""
    run(train_kernel_denoiser, "evaluate", "--out", tmp_path, "--count", 6, "--sizes", 33)
    rows = [line.split(",") for line in (tmp_path / "evaluation.csv").read_text().splitlines()[1:]]
    assert len(rows) == 6
    for _, _, noisy, linear, denoised in rows:
        assert float(denoised) < min(float(noisy), float(linear))
    assert (tmp_path / "denoised.png").exists()


def test_kernel_diffusion_trains_resumes_and_is_loaded(train_kernel_diffusion, drawn, tmp_path):
    out, weights = tmp_path / "diffusion", tmp_path / "weights"
    train = (train_kernel_diffusion, "train", "--kernels", drawn / "kernels.npz", "--out", out, "--pixels", 512)
    run(*train, "--steps", 1)
    assert step(out / "run") == 1
    run(*train, "--steps", 2)
    assert step(out / "run") == 2
    assert "Wrote 134873 parameters" in run(
        train_kernel_diffusion, "export", "--out", out, "--weights", weights
    )
    prior = KernelDiffusion.from_pretrained(weights)
    torch.testing.assert_close(prior.alphas_cumprod, KernelDiffusion.from_pretrained().alphas_cumprod)
    assert prior.predict_noise(torch.randn(1, 1, 12, 12), 500).isfinite().all()


def test_kernel_diffusion_is_evaluated(train_kernel_diffusion, tmp_path):
    """The one that ships, at one size: it knows more than the denoiser where noise hides the kernel."""
    run(train_kernel_diffusion, "evaluate", "--out", tmp_path, "--count", 8, "--sizes", 17, "--steps", 3)
    rows = [line.split(",") for line in (tmp_path / "evaluation.csv").read_text().splitlines()[1:]]
    assert [int(row[1]) for row in rows] == list(train_kernel_diffusion.TESTED)
    assert all(float(diffusion) < float(denoiser) for _, t, diffusion, denoiser in rows if int(t) >= 200)
    assert (tmp_path / "samples.png").exists()


@pytest.mark.slow
def test_prior_trains_resumes_and_is_loaded(train_prior, photos, tmp_path, monkeypatch):
    batch, sample = train_prior.Photographs.batch, train_prior.sample
    monkeypatch.setattr(
        train_prior.Photographs, "batch", lambda self, count, size: batch(self, count, min(size, 32))
    )
    monkeypatch.setattr(train_prior, "sample", partial(sample, steps=2))
    out, weights = tmp_path / "out", tmp_path / "weights"
    autoencoder = (train_prior, "autoencoder", photos, "--out", out, "--batch", 1, "--crop", 32)
    run(*autoencoder, "--steps", 1)
    assert step(out / "autoencoder") == 1
    run(*autoencoder, "--steps", 2)
    assert step(out / "autoencoder") == 2
    unet = (train_prior, "unet", photos, "--out", out, "--batch", 1)
    run(*unet, "--steps", 1)
    run(*unet, "--steps", 2)
    assert step(out / "unet") == 2
    assert (out / "unet" / "samples.png").exists()
    assert "Wrote 10" in run(train_prior, "export", "--out", out, "--weights", weights)
    prior = load_prior(weights, torch.device("cpu"))
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    z = prior.encode(x)
    assert prior.decode(z, 32, 32).shape == x.shape
    assert prior.predict_noise(z, 500).isfinite().all()


def test_folder_without_photographs_is_refused(train_prior, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="No photographs found"):
        train_prior.Photographs(tmp_path / "empty")
