"""Smaller networks that start from larger ones: what is kept, and the program that trains them."""

from __future__ import annotations

import torch
from typer.testing import CliRunner

from latentdem.priors import load_prior
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.unet import UNet


def run(program, *arguments: object) -> None:
    result = CliRunner().invoke(program.app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def step(folder) -> int:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


SEEN = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32).sin()


def test_blocks_that_change_nothing_are_not_missed(pruning):
    torch.manual_seed(0)
    teacher = EmbeddedAutoencoder(latent_channels=4, widths=(8, 12))
    for coder, kept in ((teacher.encoder, [3, 5, 6]), (teacher.decoder, [1, 2, 6])):
        for number in kept:
            block = coder[number]
            if hasattr(block, "body"):
                torch.nn.init.normal_(block.body[3].weight, std=0.1)
    student = pruning.pruned_autoencoder(teacher, 12)
    assert len(student.encoder) < len(teacher.encoder)
    z = teacher.encode(SEEN)
    torch.testing.assert_close(student.encode(SEEN), z)
    torch.testing.assert_close(student.decode(z), teacher.decode(z))


def test_the_channels_with_the_largest_weights_of_each_group_are_kept(pruning):
    weight = torch.tensor([1.0, 5, 3, 9, 8, 7])
    assert pruning.largest(weight, 4, groups=2).tolist() == [1, 2, 3, 4]
    assert pruning.largest(weight, 3, groups=1).tolist() == [3, 4, 5]


def test_pruned_noise_predictor_computes_roughly_the_same(pruning):
    torch.manual_seed(0)
    teacher = UNet(4, 4, block_out_channels=(8, 12), layers_per_block=2, norm_num_groups=4)
    # What is left out changes nothing: second blocks on the way down, middle ones on the way up.
    for stage in teacher.down_blocks:
        stage.resnets[1].conv2.requires_grad_(False).weight.zero_()
        stage.resnets[1].conv2.bias.zero_()
    for stage in teacher.up_blocks:
        block = stage.resnets[1].requires_grad_(False)
        for value in (
            block.conv2.weight,
            block.conv2.bias,
            block.conv_shortcut.weight,
            block.conv_shortcut.bias,
        ):
            value.zero_()
        width = len(block.conv2.bias)
        block.conv_shortcut.weight[:, :width, 0, 0] = torch.eye(width)
    student = pruning.pruned(teacher, (8, 12), fit_steps=300)
    x = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        wanted, result = teacher(x, 300), student(x, 300)
    assert (wanted - result).norm() < 0.1 * wanted.norm()


def test_small_networks_train_resume_and_are_loaded(distill_prior, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(distill_prior, "SIZES", (32,))
    teacher, out, weights = tmp_path / "teacher", tmp_path / "out", tmp_path / "weights"
    EmbeddedAutoencoder(widths=(8, 20)).save_pretrained(teacher / "autoencoder")
    UNet(8, 8, block_out_channels=(16, 32), layers_per_block=2).save_pretrained(teacher / "unet")
    common = ("--teacher", teacher, "--out", out, "--batch", 1)
    for count in (1, 2):
        run(distill_prior, "autoencoder", photos, *common, "--width", 16, "--crop", 32, "--steps", count)
        assert step(out / "autoencoder") == count
        run(distill_prior, "unet", photos, *common, "--widths", "16,16", "--steps", count)
        assert step(out / "unet") == count
    run(distill_prior, "export", "--out", out, "--weights", weights)
    prior = load_prior(weights, torch.device("cpu"))
    z = prior.encode(SEEN)
    assert prior.decode(z, 32, 32).shape == SEEN.shape
    assert prior.predict_noise(z, 500).isfinite().all()
