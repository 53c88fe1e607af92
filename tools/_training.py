"""A small resumable training loop: warm-up and cosine decay, EMA, bf16 autocast, a loss curve."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from latentdem.priors.embedded import bfloat16_is_fast


def adamw(weights: Iterable[Tensor], rate: float) -> AdamW:
    """AdamW with the settings of all trainings here."""
    return AdamW(weights, lr=rate, weight_decay=1e-4, fused=True)


class Trainer:
    """Runs `loss_fn(step) -> dict of scalars with "loss"` until `steps`, saving to `folder` as it goes.

    Where "loss" does not require a gradient, `loss_fn` has already set the gradients of the weights.

    A second start with the same folder resumes from the last checkpoint (`seconds` adds up).

    Args:
        model: network to train.
        folder: folder of the checkpoint, the losses and their curve.
        steps: optimiser steps in total; the learning rates fall to the share `final_rate` until then.
        optimizers: optimisers with their learning rates; empty for AdamW with `learning_rate`.
        learning_rate: learning rate of AdamW.
        final_rate: share of the learning rates at the last step.
        ema_decay: decay of the averaged weights.
        minutes: time limit, until which the learning rates fall; None for none.
        save_every: steps between checkpoints.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        *,
        steps: int,
        optimizers: Sequence[Optimizer] = (),
        learning_rate: float = 1e-3,
        final_rate: float = 0.01,
        ema_decay: float = 0.999,
        minutes: float | None = None,
        save_every: int = 500,
    ) -> None:
        self.model, self.folder, self.steps = model, Path(folder), steps
        self.limit, self.save_every, self.final_rate = minutes and 60 * minutes, save_every, final_rate
        self._ema_decay = ema_decay
        self.optimizers = list(optimizers) or [adamw(model.parameters(), learning_rate)]
        self._rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.ema = AveragedModel(model, multi_avg_fn=self._average)
        self.step, self.seconds = 0, 0.0
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.log = self.folder / "loss.csv"
        if self.checkpoint.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], _: Tensor) -> None:
        """Exponential moving average with decay min(`ema_decay`, (1 + n) / (10 + n)) after n steps.

        A fixed decay close to 1 would keep a share of the untrained weights for thousands of steps.
        """
        n = self.step  # reading the number that PyTorch passes would wait for the GPU
        torch._foreach_lerp_(averaged, current, 1 - min(self._ema_decay, (1 + n) / (10 + n)))

    def _rate(self, elapsed: float) -> float:
        """Factor of the learning rates at this step, `elapsed` seconds after the start."""
        warmup = min(1.0, (self.step + 1) / 200)
        done = max(self.step / self.steps, elapsed / self.limit if self.limit else 0.0)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return warmup * (self.final_rate + (1 - self.final_rate) * cosine)

    def run(self, loss_fn: Callable[[int], dict[str, Tensor]], device: torch.device) -> None:
        """Trains until the last step, the time limit or Ctrl-C, and saves in every case."""
        try:
            self._run(loss_fn, device)
        finally:
            self.save()
            self.plot()

    def _run(self, loss_fn: Callable[[int], dict[str, Tensor]], device: torch.device) -> None:
        started, offset, window = time.monotonic(), self.seconds, []
        bar = tqdm(total=self.steps, initial=self.step, desc=self.folder.name, mininterval=5)
        while self.step < self.steps and not (self.limit and time.monotonic() - started > self.limit):
            for optimizer, rate in zip(self.optimizers, self._rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * self._rate(time.monotonic() - started)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16_is_fast(device)):
                losses = loss_fn(self.step)
            if losses["loss"].requires_grad:
                losses["loss"].backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.ema.update_parameters(self.model)
            self.step += 1
            self.seconds = offset + time.monotonic() - started
            window.append({name: value.detach() for name, value in losses.items()})
            bar.update()
            if self.step % 100 == 0:
                mean = {name: float(sum(row[name] for row in window)) / len(window) for name in window[0]}
                window.clear()
                bar.set_postfix({name: f"{value:.4f}" for name, value in mean.items()})
                self._append(mean)
            if self.step % self.save_every == 0:
                self.save()
        bar.close()

    def _append(self, mean: dict[str, float]) -> None:
        new = not self.log.exists()
        with self.log.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "seconds", *mean])
            writer.writerow([self.step, round(self.seconds), *(round(v, 6) for v in mean.values())])

    def plot(self) -> None:
        """Writes loss.png from loss.csv."""
        if not self.log.exists():
            return
        with self.log.open() as file:
            rows = list(csv.DictReader(file))
        figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
        axis.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows])
        axis.set(xlabel="step", ylabel="loss", yscale="log", title=self.folder.name)
        figure.savefig(self.folder / "loss.png", dpi=120)
        plt.close(figure)
