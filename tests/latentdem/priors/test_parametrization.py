from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from latentdem import UserError
from latentdem.priors.parametrization import LEAST_ALPHA, Parametrization


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_noise_leads_to_the_clean_latent_of_the_scheduler(prediction: str, t: int) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    z_t, output = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    scheduler.set_timesteps(1000)
    expected = scheduler.step(output, t, z_t).pred_original_sample
    a = scheduler.alphas_cumprod[t].double()
    noise = Parametrization.of(scheduler).noise(output, z_t, t)
    torch.testing.assert_close((z_t - (1 - a).sqrt() * noise) / a.sqrt(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_leaves_a_finite_clean_latent(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[-1] == 0
    known = Parametrization.of(scheduler)
    assert known.alphas_cumprod[-1] == LEAST_ALPHA
    torch.testing.assert_close(known.alphas_cumprod[:-1], scheduler.alphas_cumprod[:-1])
    z_t, output = torch.randn(2, 1, 4, 8, 8)
    a = known.alphas_cumprod[999]
    z0 = (z_t - (1 - a).sqrt() * known.noise(output, z_t, 999)) / a.sqrt()
    expected = -output if prediction == "v_prediction" else output
    torch.testing.assert_close(z0, expected, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("offset", [0, 1])
def test_steps_offset_does_not_change_the_schedule(offset: int) -> None:
    abar = Parametrization.of(DDIMScheduler(steps_offset=offset)).alphas_cumprod
    assert torch.equal(abar, DDIMScheduler().alphas_cumprod)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "flow matching and EDM"),
        ("EDMEulerScheduler", {}, "flow matching and EDM"),
        (
            "DPMSolverMultistepScheduler",
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
            "flow",
        ),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "flow matching and EDM"),
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "'flow_prediction'"),
        ("DDPMScheduler", {"num_train_timesteps": 100}, "100 training timesteps"),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "zero terminal SNR and predicts noise"),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True}, "zero terminal SNR and predicts noise"),
    ],
)
def test_schedulers_without_a_clean_latent_are_refused(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Parametrization.of(getattr(diffusers, name)(**config))
    assert name in str(raised.value)


def test_schedulers_of_other_samplers_give_the_same_schedule() -> None:
    expected = Parametrization.of(DDIMScheduler()).alphas_cumprod
    for kind in (EulerDiscreteScheduler, diffusers.PNDMScheduler, diffusers.UniPCMultistepScheduler):
        torch.testing.assert_close(Parametrization.of(kind()).alphas_cumprod, expected)
