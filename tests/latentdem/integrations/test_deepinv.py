"""deepinv itself: conventions, every kind of physics, and what comes back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import latentdem
import latentdem_ext as ext
from latentdem.errors import UserError
from latentdem.metrics import kernel_metrics
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem_ext.integrations import deepinv as forwarded

deepinv = pytest.importorskip("deepinv", reason="deepinv is not installed", exc_type=ImportError)

from deepinv import physics as dp  # noqa: E402
from deepinv.physics.generator import MotionBlurGenerator  # noqa: E402

from latentdem.integrations import deepinv as integration  # noqa: E402
from latentdem.integrations._physics import measurement_of  # noqa: E402


class Clipped(dp.Physics):
    """A sensor that saturates: not linear."""

    def A(self, x, **kwargs):
        return (1.5 * x).clamp(max=1)


def motion(size, batch=1):
    return MotionBlurGenerator((size, size)).step(batch, seed=3)["filter"]


def physics_of(name, channels=3, batch=1):
    size = (channels, 40, 48)
    noise = {"noise_model": dp.GaussianNoise(0.01)}
    return {
        "BlurFFT": lambda: dp.BlurFFT(img_size=size, filter=motion(9), **noise),
        "Blur, circular": lambda: dp.Blur(filter=motion(9, batch), padding="circular", **noise),
        "Blur, valid": lambda: dp.Blur(filter=motion(9, batch), padding="valid", **noise),
        "Blur, reflect": lambda: dp.Blur(filter=motion(8), padding="reflect", **noise),
        "Downsampling": lambda: dp.Downsampling(img_size=size, filter="gaussian", factor=2, **noise),
        "Inpainting": lambda: dp.Inpainting(size, mask=0.6, **noise),
        "CompressedSensing": lambda: dp.CompressedSensing(m=20, img_size=size, **noise),
        "Clipped": lambda: Clipped(**noise),
    }[name]()


LINEAR = [
    "BlurFFT",
    "Blur, circular",
    "Blur, valid",
    "Blur, reflect",
    "Downsampling",
    "Inpainting",
    "CompressedSensing",
]


@pytest.fixture
def model(tiny_prior):
    return integration.LatentDEMReconstructor(9, prior=tiny_prior, steps=2, device="cpu")


@pytest.fixture
def unit(scene):
    """(B, C, 40, 48) pictures in [0, 1]."""
    return lambda batch=1, channels=3: (
        torch.cat([scene(40, 48, channels, seed=i) for i in range(batch)]) / 2 + 0.5
    )


def test_former_name_forwards_with_a_warning():
    with pytest.warns(DeprecationWarning, match="has moved to latentdem.integrations.deepinv"):
        assert forwarded.LatentDEMReconstructor is integration.LatentDEMReconstructor
    with pytest.warns(DeprecationWarning, match="has moved"), pytest.raises(AttributeError):
        _ = forwarded.NothingOfThatName


def test_former_name_does_not_import_the_solver():
    program = (
        "import sys, latentdem_ext.integrations.deepinv\nassert not {'latentdem', 'deepinv'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("size", [9, 8])
def test_kernels_have_the_same_convention(unit, size):
    x, kernel = unit(), motion(size)
    torch.testing.assert_close(dp.BlurFFT(img_size=x.shape[1:], filter=kernel).A(x), ext.blur(x, kernel))
    torch.testing.assert_close(dp.Blur(filter=kernel, padding="circular").A(x), ext.blur(x, kernel))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("channels", [1, 3])
def test_operator_and_proximal_step_of_a_linear_physics(unit, name, channels):
    """The adjoint is one, and the proximal step has no gradient left; two images with two samples each."""
    batch = 1 if name == "CompressedSensing" else 2
    x = unit(batch, channels)
    physics = physics_of(name, channels, batch)
    y = physics.A(x)
    measured = measurement_of(physics, y)
    operator, none = measured.operator, torch.zeros(2 * batch, 1, 1, 1)
    colour = (2 * x - 1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(operator(colour, none[:batch]), measured.y, rtol=1e-4, atol=1e-4)

    image = colour.repeat_interleave(2, 0) + 0.1 * torch.randn(2 * batch, 3, 40, 48)
    data, rho = measured.y.repeat_interleave(2, 0), torch.rand(2 * batch) + 0.1
    found = operator.proximal(image, none, data, rho, 100)
    gap = operator(found, none) - data
    gradient = operator.adjoint(gap, found, none) + rho.view(-1, 1, 1, 1) * (found - image)
    assert gradient.norm() < 1e-4 * image.norm()
    inner = (gap * operator(image, none)).sum(), (operator.adjoint(gap, image, none) * image).sum()
    torch.testing.assert_close(*inner, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*LINEAR, "Clipped"])
def test_forward(model, unit, name):
    x, physics = unit(), physics_of(name)
    y = physics(x)
    image = model(y, physics)
    assert image.shape == x.shape
    assert image.dtype == x.dtype
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(model(y, physics), image)


@pytest.mark.parametrize("name", ["Blur, valid", "Downsampling", "Inpainting", "Clipped"])
def test_a_perfect_prior_recovers_the_picture(oracle, unit, name):
    x, physics = unit(2), physics_of(name, batch=2)
    model = integration.LatentDEMReconstructor(prior=oracle(2 * x - 1), steps=4, device="cpu")
    assert (model(physics(x), physics) - x).square().mean() < 1e-3


@pytest.mark.parametrize("name", ["BlurFFT", "Blur, circular"])
def test_known_circular_blur_equals_deblur(tiny_prior, model, unit, name):
    x, physics = unit(), physics_of(name)
    y = physics(x)
    image, parameters = model.estimate(y, physics)
    expected = latentdem.deblur(
        2 * y - 1,
        kernel=motion(9),
        noise_sigma=0.02,
        prior=tiny_prior,
        steps=2,
        boundary="circular",
        device="cpu",
    )
    torch.testing.assert_close(image, expected.image / 2 + 0.5)
    assert parameters["filter"].shape == (1, 1, 9, 9)


@pytest.mark.parametrize(
    "physics",
    [
        lambda: dp.BlurFFT(img_size=(3, 40, 48)),
        lambda: dp.Blur(padding="circular"),
        lambda: dp.Blur(padding="valid"),
    ],
)
def test_unknown_kernel(model, unit, physics):
    physics, x = physics(), unit()
    physics.noise_model = dp.GaussianNoise(0.01)
    y = physics(x, filter=motion(9))
    physics.filter = None
    image, parameters = model.estimate(y, physics)
    assert physics.filter is None
    assert image.shape == x.shape
    physics.update(**parameters)
    assert physics.A(image).shape == y.shape
    assert parameters["filter"].sum() == pytest.approx(1, abs=1e-4)


def test_unknown_kernel_of_grey_images_with_different_noise(model, unit):
    x = unit(2, 1)
    noise = dp.GaussianNoise(torch.tensor([0.01, 0.03]))
    image = model(x, dp.Blur(padding="circular", noise_model=noise))
    assert image.shape == x.shape


def test_a_batch_equals_single_runs(model, unit):
    x, physics = unit(2), dp.Downsampling(img_size=(3, 40, 48), filter="gaussian", factor=2)
    physics.noise_model = dp.GaussianNoise(0.01)
    y = physics(x)
    both = model(y, physics)
    torch.testing.assert_close(both[1:], model(y[1:], physics), rtol=1e-3, atol=1e-3)


def test_parameters_of_the_physics_can_be_given(model, unit):
    x = unit()
    physics = dp.BlurFFT(img_size=x.shape[1:], noise_model=dp.GaussianNoise(0.01))
    y = physics(x, filter=motion(9))
    physics.filter = None
    _, parameters = model.estimate(y, physics, filter=motion(9))
    torch.testing.assert_close(parameters["filter"], motion(9))


@pytest.mark.parametrize(
    ("y", "physics", "message"),
    [
        (torch.rand(1, 2, 40, 48), lambda: dp.Denoising(dp.GaussianNoise(0.1)), "1 or 3, H, W"),
        (torch.rand(1, 3, 40, 48), lambda: dp.Denoising(dp.GaussianNoise(torch.rand(2))), "one number or one"),
        (torch.rand(1, 9), lambda: dp.CompressedSensing(9, (3, 8, 8)), "noise_sigma"),
        (torch.rand(1, 3, 40, 48) * 1j, lambda: dp.Denoising(dp.GaussianNoise(0.1)), "real numbers"),
    ],
)
def test_wrong_combinations_are_refused(model, y, physics, message):
    with pytest.raises(UserError, match=message):
        model(y, physics())


def test_kernel_denoiser():
    kernel = torch.cat([motion(17), 0.5 * motion(17).flip(-1)])
    denoiser = integration.KernelDenoiser()
    found = denoiser(kernel, 0.01)
    peak = kernel.amax((1, 2, 3))
    torch.testing.assert_close(found, load_kernel_denoiser().denoise(kernel, 0.01 / peak))
    noisy = kernel + 0.1 * peak.view(-1, 1, 1, 1) * torch.randn_like(kernel)
    cleaned = denoiser(noisy, 0.1 * peak)
    assert (cleaned - kernel).norm() < 0.5 * (noisy - kernel).norm()


def test_metrics():
    true, found = motion(17, 2), motion(17, 2).roll(2, -1) + 0.001
    pairs = [kernel_metrics(a, b) for a, b in zip(found, true, strict=True)]
    torch.testing.assert_close(integration.KernelMSE()(found, true), torch.tensor([p.mse for p in pairs]))
    torch.testing.assert_close(integration.KernelMNC()(found, true), torch.tensor([p.mnc for p in pairs]))
    assert integration.KernelMNC(reduction="mean")(true, true).item() == pytest.approx(1)
    assert integration.KernelMSE().lower_better
    assert not integration.KernelMNC().lower_better
