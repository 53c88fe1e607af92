"""One step of the training of the view-conditioned prior: all its losses, on a GPU as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _together import KNOWN, Together, draw_together, together_losses
from _view_losses import ViewGroup, draw_group, training_losses
from _views import Views
from torch import Tensor, nn

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.embedded import bfloat16_is_fast
from latentdem.three_d.priors.network import ViewNetwork


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
        self._graphs: dict[int, _Graph] = {}

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Those of `training_losses` and, with "together_" before their names, of `together_losses`.

        On a GPU the gradients are there already, and "loss" has none.
        """
        known = KNOWN[step % len(KNOWN)]
        alone = draw_group(self._data, self._coder, self._batch, self._targets)
        objects = max(1, self._batch // known)
        several = draw_together(self._data, self._coder, objects, known, self._targets)
        views = (*alone, *several)
        if not self._levels.is_cuda:
            return self._losses(*views)
        if known not in self._graphs:
            self._graphs[known] = _Graph(self._losses, views, list(self._model.parameters()))
        return self._graphs[known](views)

    def _losses(self, *views: Tensor) -> dict[str, Tensor]:
        count = len(ViewGroup._fields)
        # A graph must not take weights for granted that were converted before it.
        where = self._levels.device
        fast = bfloat16_is_fast(where)
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=fast, cache_enabled=False):
            alone = training_losses(self._model, ViewGroup(*views[:count]), self._levels)
            several = together_losses(self._model, Together(*views[count:]), self._levels)
        named = {f"together_{name}": value for name, value in several.items()}
        return alone | named | {"loss": alone["loss"] + several["loss"]}


class _Graph:
    """Losses and their gradients as a CUDA graph, so that thousands of launches are one.

    Args:
        losses: gives them, "loss" among them, by name.
        inputs: such as it will be called with.
        weights: that have gradients.
    """

    def __init__(
        self, losses: Callable[..., dict[str, Tensor]], inputs: tuple[Tensor, ...], weights: list[nn.Parameter]
    ) -> None:
        self._inputs, self._weights = tuple(each.clone() for each in inputs), weights
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is only done at first must not be captured
                self._differentiated(losses)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._found, self._gradients = self._differentiated(losses)

    def _differentiated(
        self, losses: Callable[..., dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...]]:
        found = losses(*self._inputs)
        gradients = torch.autograd.grad(found["loss"], self._weights, allow_unused=True)
        return {name: value.detach() for name, value in found.items()}, gradients

    def __call__(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        torch._foreach_copy_(self._inputs, inputs)
        self._graph.replay()
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient
        # The next replay writes to the same memory.
        return {name: value.clone() for name, value in self._found.items()}
