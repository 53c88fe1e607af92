"""One training step of the view-conditioned prior: all its losses, on a GPU as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _several_views import KNOWN, SeveralViews, draw_several, several_losses
from _view_losses import ViewGroup, draw_group, training_losses
from _views import Views
from torch import Tensor, nn

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.embedded import bfloat16_is_fast
from latentdem.three_d.priors.network import ViewNetwork


class ViewStep:
    """Losses of random target views, given one known view, and given two or three known views.

    Args:
        model: the network.
        data: renderings.
        coder: autoencoder.
        levels: (T,) cumulative alphas.
        batch: number of known views of either kind.
        targets: target views for each known view, and for each group of known views.
        denoised: see `training_losses`.

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
        denoised: float = 1.0,
    ) -> None:
        views, needed = data.pictures.shape[1], max(KNOWN) + targets
        if views < needed:
            raise SystemExit(
                f"Each object has {views} views; {max(KNOWN)} known and {targets} predicted ones need {needed}."
            )
        self._model, self._data, self._coder, self._levels = model, data, coder, levels
        self._batch, self._targets, self._denoised = batch, targets, denoised
        self._graphs: dict[int, _Graph] = {}

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Losses of `training_losses` and, with the prefix "together_", of `several_losses`.

        On a GPU the gradients are already computed, and "loss" cannot be differentiated again.
        """
        known = KNOWN[step % len(KNOWN)]
        alone = draw_group(self._data, self._coder, self._batch, self._targets)
        objects = max(1, self._batch // known)
        several = draw_several(self._data, self._coder, objects, known, self._targets)
        views = (*alone, *several)
        if not self._levels.is_cuda:
            return self._losses(*views)
        if known not in self._graphs:
            self._graphs[known] = _Graph(self._losses, views, list(self._model.parameters()))
        return self._graphs[known](views)

    def _losses(self, *views: Tensor) -> dict[str, Tensor]:
        count = len(ViewGroup._fields)
        # A graph must convert the weights itself, and not use a cache filled before its capture.
        device = self._levels.device
        fast = bfloat16_is_fast(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast, cache_enabled=False):
            alone = training_losses(self._model, ViewGroup(*views[:count]), self._levels, self._denoised)
            several = several_losses(self._model, SeveralViews(*views[count:]), self._levels, self._denoised)
        named = {f"together_{name}": value for name, value in several.items()}
        return alone | named | {"loss": alone["loss"] + several["loss"]}


class _Graph:
    """Losses and their gradients as a CUDA graph, which replaces thousands of launches by one.

    Args:
        losses: function that returns losses by name, "loss" among them.
        inputs: example inputs with the shapes of all later ones.
        weights: parameters to be differentiated.
    """

    def __init__(
        self, losses: Callable[..., dict[str, Tensor]], inputs: tuple[Tensor, ...], weights: list[nn.Parameter]
    ) -> None:
        self._inputs, self._weights = tuple(tensor.clone() for tensor in inputs), weights
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # initialisation must not be captured
                self._differentiated(losses)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._losses, self._gradients = self._differentiated(losses)

    def _differentiated(
        self, losses: Callable[..., dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...]]:
        values = losses(*self._inputs)
        gradients = torch.autograd.grad(values["loss"], self._weights, allow_unused=True)
        return {name: value.detach() for name, value in values.items()}, gradients

    def __call__(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        torch._foreach_copy_(self._inputs, inputs)
        self._graph.replay()
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient
        # The next replay overwrites the same memory.
        return {name: value.clone() for name, value in self._losses.items()}
