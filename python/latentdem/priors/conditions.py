"""Conditions of a text-conditional noise predictor: embeddings of a prompt, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True)
class Condition:
    """Embeddings of one prompt.

    Attributes:
        embeddings: (1, L, D) embeddings of its L tokens.
        pooled: (1, P) embedding of the whole prompt, where the noise predictor takes it (Stable Diffusion XL).
    """

    embeddings: Tensor
    pooled: Tensor | None = None

    def same(self, other: Condition) -> bool:
        """Whether both have equal embeddings."""
        pairs = ((self.embeddings, other.embeddings), (self.pooled, other.pooled))
        return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@torch.no_grad()
def encode_prompts(
    pipeline: Any, prompt: str, negative_prompt: str | None, guidance: float
) -> tuple[Condition | None, Condition | None]:
    """Conditions of the prompt and, where guidance is not 1, of the negative prompt, as in diffusers.

    Args:
        pipeline: diffusers pipeline; without a text encoder it is unconditional.
        prompt: description of the image; "" for any image.
        negative_prompt: description that guidance leads away from; None for the default of the pipeline.
        guidance: scale of classifier-free guidance, 1 for none.

    Raises:
        UserError: a prompt or guidance for an unconditional checkpoint.
    """
    encoders = (getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2"))
    if all(encoder is None for encoder in encoders):
        if prompt or negative_prompt or guidance != 1:
            raise UserError("This checkpoint knows no text; leave out prompt, negative prompt and guidance.")
        return None, None
    positive, negative, *pooled = pipeline.encode_prompt(
        prompt=prompt,
        # Where diffusers keeps the networks on the CPU until they run, `device` would be the wrong one.
        device=getattr(pipeline, "_execution_device", pipeline.device),
        num_images_per_prompt=1,
        do_classifier_free_guidance=guidance != 1,
        negative_prompt=negative_prompt,
    )
    pooled_positive, pooled_negative = pooled or (None, None)
    condition = Condition(positive, pooled_positive)
    return condition, None if guidance == 1 else Condition(negative, pooled_negative)
