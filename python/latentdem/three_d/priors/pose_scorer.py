"""A network that tells from a predicted view and the real one whether their relative pose is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...priors.network import Network
from .layers import Residual, convolution

LARGEST = (
    6.0  # deviations of the real view, in units of the predicted standard deviation, beyond which all are alike
)
LOG_VARIANCES = (-8.0, 4.0)  # range of the logarithms of predicted variances


class PoseScorer(Network):
    """Scores how well a view fits what the prior predicts of it from another view at a pose.

    The error of the prediction alone is a poor judge on objects that the prior has not learnt: what it cannot
    know, such as the print on the other side, weighs as much as what it should know, such as the outline. The
    network sees all features of the wanted pixels, and is trained to pick the right pose among wrong ones, so
    that the softmax of the scores of several poses is the probability of each. Trained by
    tools/train_pose_scorer.py. The idea is that of the pose-ranking networks of 6D pose estimation (Labbe et
    al. 2022, *MegaPose*; Wen et al. 2024, *FoundationPose*).

    Args:
        rendered: channels of the features of the wanted pixels, see `ViewNetwork.render`; the first are the
            predicted latents, the next is the logarithm of their variance.
        latent_channels: channels c of the latents.
        widths: channels at the full and at half the resolution of the latents.
        hidden: features of the last layer but one.
    """

    def __init__(
        self,
        rendered: int = 96,
        latent_channels: int = 8,
        widths: tuple[int, int] = (64, 96),
        hidden: int = 128,
    ) -> None:
        super().__init__(rendered=rendered, latent_channels=latent_channels, widths=list(widths), hidden=hidden)
        full, half = widths
        self.body = nn.Sequential(
            *convolution(rendered + 2 * latent_channels, full, side=1),
            Residual(full),
            *convolution(full, half, stride=2),
            Residual(half),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * half + 2, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, rendered: Tensor, z: Tensor) -> Tensor:
        """Scores (B,), float32.

        Args:
            rendered: (B, rendered, h, w) features of the wanted pixels at a pose.
            z: (B, c, h, w) latents of the real view.
        """
        channels = self.config["latent_channels"]
        mean, log_variance = rendered[:, :channels], rendered[:, channels : channels + 1]
        deviation = (z - mean) * torch.exp(-0.5 * log_variance.clamp(*LOG_VARIANCES))
        seen = torch.cat([rendered, z, deviation.clamp(-LARGEST, LARGEST)], 1)
        features = self.body(seen.contiguous(memory_format=torch.channels_last))
        misfit = deviation.square().float().clamp(max=50).mean((1, 2, 3)).log1p()
        spread = log_variance.float().mean((1, 2, 3))
        pooled = [features.mean((2, 3)), features.amax((2, 3))]
        pooled += [value[:, None].to(features.dtype) for value in (misfit, spread)]
        return self.head(torch.cat(pooled, 1))[:, 0].float()
