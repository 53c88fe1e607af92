"""One step of the training of the view-conditioned prior: all its losses, on a GPU as a CUDA graph."""

from __future__ import annotations

import torch
from _together import KNOWN, Together, draw_together, together_losses
from _view_losses import ViewGroup, draw_group, training_losses
from _views import Views
from torch import Tensor, nn

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.three_d.view_network import ViewNetwork


class ViewStep:
    """The losses of random views, some known alone and as many together with one or two others.

    Args:
        model: the network.
        data: the views.
        coder: makes their latents.
        levels: (T,) cumulative alphas.
        batch: known views, alone and together each.
        targets: views that are predicted of each known one, and of those together.

    Raises:
        SystemExit: the objects have too few views.
    """

    def __init__(
        self,
        model: ViewNetwork,
        data: Views,
        coder: EmbeddedAutoencoder,
        levels: Tensor,
        batch: int,
        targets: int,
    ) -> None:
        views, needed = data.pictures.shape[1], max(KNOWN) + targets
        if views < needed:
            raise SystemExit(
                f"Each object has {views} views; {max(KNOWN)} known and {targets} predicted ones need {needed}."
            )
        self._model, self._data, self._coder, self._levels = model, data, coder, levels
        self._batch, self._targets = batch, targets
        self._losses: dict[int, nn.Module] = {}

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Those of `training_losses` and, with "together_" before their names, of `together_losses`."""
        known = KNOWN[step % len(KNOWN)]
        alone = draw_group(self._data, self._coder, self._batch, self._targets)
        objects = max(1, self._batch // known)
        several = draw_together(self._data, self._coder, objects, known, self._targets)
        views = (*alone, *several)
        if known not in self._losses:
            losses = _Losses(self._model, self._levels).train()
            if self._levels.is_cuda:
                # Far more launches than a processor can make in the time that the GPU needs for them.
                with torch.autocast("cuda", enabled=False, cache_enabled=False):
                    losses = torch.cuda.make_graphed_callables(losses, views, allow_unused_input=True)
            self._losses[known] = losses
        loss, others = self._losses[known](*views)
        # Every replay of a graph writes to the same memory.
        return {"loss": loss, **dict(zip(NAMES, others.detach().clone().unbind(), strict=True))}


NAMES = (
    *("estimate", "variance", "angle", "solid", "v", "noise"),
    *(f"together_{name}" for name in ("estimate", "fused", "variance", "v")),
)


class _Losses(nn.Module):
    """The sum of the losses, and (len(NAMES),) these, as a module of tensors alone."""

    def __init__(self, model: ViewNetwork, levels: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, *views: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.levels, Tensor)
        count = len(ViewGroup._fields)
        with torch.autocast(self.levels.device.type, dtype=torch.bfloat16, cache_enabled=False):
            alone = training_losses(self.model, ViewGroup(*views[:count]), self.levels)
            several = together_losses(self.model, Together(*views[count:]), self.levels)
        named = alone | {f"together_{name}": value for name, value in several.items()}
        return alone["loss"] + several["loss"], torch.stack([named[name] for name in NAMES])
