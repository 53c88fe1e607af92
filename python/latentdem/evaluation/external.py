"""Methods of other people as rows: results that they have left in a folder, and programs that are run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..io.channels import from_rgb, to_rgb
from ..io.images import write_image
from ..operators.kernels import delta_kernel
from ..output.result import Result
from ..solver.passes import Progress
from .cases import Task
from .layouts import Found, find_result
from .programs import Command, Usage
from .runner import MethodError

INPUTS = ("input", "input_folder")
OUTPUTS = ("output", "output_folder")
PLACEHOLDERS = (*INPUTS, *OUTPUTS, "kernel", "kernel_output", "kernel_size", "sigma")
_NO_KERNEL = 3  # pixels of the kernel that stands for one that was not estimated


class _Known(Protocol):
    """What an evaluation tells of its inputs."""

    @property
    def kernel_size(self) -> int | None: ...

    @property
    def noise_sigma(self) -> float | None: ...


class RealPicture(Protocol):
    """The part of a `PictureTask` that an external method needs."""

    @property
    def blurred(self) -> Tensor: ...

    @property
    def kernel(self) -> Tensor | None: ...

    @property
    def settings(self) -> _Known: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def stems(self) -> tuple[str, ...]: ...

    @property
    def index(self) -> int: ...


@dataclass
class ExternalResult(Result):
    """What another program made of one image.

    Attributes:
        kernel_estimated: whether the program left a kernel; without, `kernel` changes nothing.
        usage: time and memory, None where they are not known.
    """

    kernel_estimated: bool = False
    usage: Usage | None = None


@dataclass(frozen=True)
class Published:
    """Results that lie in a folder, in one of the known layouts; see `layouts.LAYOUTS`.

    Attributes:
        folder: the folder.
    """

    folder: Path

    def __str__(self) -> str:
        return f"published:{self.folder.resolve()}"

    def __call__(self, task: Task | RealPicture) -> ExternalResult:
        """The picture and the kernel of one input.

        Raises:
            MethodError: there are none, or they cannot be used.
        """
        given = _Input.of(task)
        found = find_result(self.folder, given.stems, given.index)
        if found is None:
            raise MethodError(f"{self.folder} has no result of {given.stems[0]} in a known layout.")
        return _result(given, found, None)


@dataclass(frozen=True)
class Program:
    """A program that is run once for each input, in the current folder.

    Attributes:
        command: its command line. {input} is a PNG file of 8 bits and {input_folder} the folder with only it;
            {output} is the PNG file that the program has to write, and {output_folder} its folder, in which
            any known layout is found. {kernel} is a .npy file with the true kernel, which makes it a method
            with a known kernel, {kernel_output} a .npy file for the estimated one, {kernel_size} the number
            of pixels K, and {sigma} the standard deviation of the noise in units of [-1, 1].
    """

    command: Command

    def __str__(self) -> str:
        return f"command:{self.command.template}"

    @property
    def non_blind(self) -> bool:
        """Whether it is given the true kernel."""
        return "kernel" in self.command.placeholders

    def check(self) -> None:
        """Raises a UserError for unknown placeholders, or without an input or output."""
        self.command.check(PLACEHOLDERS, (INPUTS, OUTPUTS))

    def __call__(self, task: Task | RealPicture) -> ExternalResult:
        """Runs the program on one input.

        Raises:
            MethodError: it failed, took too long, or left no picture of the size of its input.
            UserError: it wants a kernel, a kernel size or a noise level that are not known.
        """
        given = _Input.of(task)
        with tempfile.TemporaryDirectory(prefix="latentdem-") as name:
            folder = Path(name)
            values = given.write(folder, self.command.placeholders)
            task.progress("program", 0, 1)
            usage = self.command.run(values, folder / "log.txt")
            found = find_result(folder / "output", given.stems, 0)
            if found is None:
                raise MethodError("it left no picture at {output} nor in a known layout of {output_folder}.")
            return _result(given, found, usage)


@dataclass(frozen=True)
class _Input:
    """One input: the picture, what is known of it, and the stems that its results may have."""

    blurred: Tensor
    stems: tuple[str, ...]
    index: int
    kernel: Tensor | None
    kernel_size: int | None
    sigma: float | None

    @classmethod
    def of(cls, task: Task | RealPicture) -> _Input:
        size, sigma = task.settings.kernel_size, task.settings.noise_sigma
        if isinstance(task, Task):
            kernel = task.kernel if task.settings.non_blind else None
            return cls(task.blurred, (Path(task.names[0]).stem,), task.indices[0], kernel, size, sigma)
        return cls(task.blurred, task.stems, task.index, task.kernel, size, sigma)

    def write(self, folder: Path, wanted: frozenset[str]) -> dict[str, object]:
        """Writes the files that a program wants into `folder`, and returns the values of its placeholders."""
        for part in ("input", "output"):
            (folder / part).mkdir()
        stem = self.stems[0]
        values: dict[str, object] = {
            "input": folder / "input" / f"{stem}.png",
            "input_folder": folder / "input",
            "output": folder / "output" / f"{stem}.png",
            "output_folder": folder / "output",
            "kernel_output": folder / "output" / f"{stem}_kernel.npy",
            "kernel": folder / "kernel.npy",
            "kernel_size": self.kernel_size,
            "sigma": self.sigma,
        }
        for name, value, option in (
            ("kernel", self.kernel, "the set must have true kernels"),
            ("kernel_size", self.kernel_size, "give --kernel-size"),
            ("sigma", self.sigma, "give --noise-sigma"),
        ):
            if name in wanted and value is None:
                raise UserError(f"The command wants {{{name}}}, which is not known here; {option}.")
        write_image(folder / "input" / f"{stem}.png", self.blurred)
        if self.kernel is not None:
            np.save(folder / "kernel.npy", self.kernel[0, 0].numpy())
        return values


def _result(given: _Input, found: Found, usage: Usage | None) -> ExternalResult:
    try:
        image, kernel = found.read_picture(), found.read_kernel()
    except UserError as error:
        raise MethodError(str(error)) from error
    if image.shape[-2:] != given.blurred.shape[-2:]:
        sizes = [f"{x.shape[-1]} x {x.shape[-2]}" for x in (image, given.blurred)]
        raise MethodError(f"{found.picture.name} is {sizes[0]} pixels, and its input {sizes[1]}.")
    unknown = torch.full((1,), torch.nan)
    return ExternalResult(
        from_rgb(to_rgb(image), given.blurred.shape[1]),
        delta_kernel(_NO_KERNEL) if kernel is None else kernel,
        given.blurred,
        unknown,
        unknown,
        seconds={"total": usage.seconds, "cpu": usage.cpu_seconds} if usage else {"total": torch.nan},
        kernel_estimated=kernel is not None,
        usage=usage,
    )


External = Published | Program


def estimated_kernel(result: Result) -> Tensor | None:
    """The kernel (1, 1, K, K) of a result of one image, None where the method gives a picture only."""
    return None if isinstance(result, ExternalResult) and not result.kernel_estimated else result.kernel


def reported(result: Result) -> dict[str, float | None]:
    """Noise level, residual, seconds and memory of a result of one image, None where they are not known."""
    if isinstance(result, ExternalResult):
        usage = result.usage
        return {
            "noise_sigma": None,
            "residual": None,
            "seconds": usage.seconds if usage else None,
            "memory_mb": usage.memory_mb if usage else None,
        }
    return {
        "noise_sigma": float(result.noise_sigma[0]),
        "residual": float(result.residual[0]),
        "seconds": result.seconds["total"],
    }
