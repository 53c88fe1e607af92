"""Methods of simulated test cases on pictures that a camera blurred."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..output.result import Result
from ..restoration.boundary import looks_circular
from .cases import EvaluationSettings, Method, Task
from .pictures import PictureTask


@dataclass(frozen=True)
class OnPictures:
    """A blind method for real pictures: noise and boundary are estimated where they are not given.

    Attributes:
        method: restores simulated test cases.
    """

    method: Method

    def __call__(self, task: PictureTask) -> Result:
        """Restores the picture.

        Raises:
            UserError: the size of the kernel is not known.
        """
        chosen = task.settings
        if chosen.kernel_size is None:
            raise UserError("This method does not find the size of a kernel; give a --kernel-size.")
        circular = looks_circular(task.blurred) if chosen.boundary == "auto" else chosen.boundary == "circular"
        settings = EvaluationSettings(
            kernel_size=chosen.kernel_size,
            noise_sigma=chosen.noise_sigma or EvaluationSettings.noise_sigma,
            estimate_noise=chosen.noise_sigma is None,
            boundary="circular" if circular else "valid",
            seed=chosen.seed,
            prior=task.prior,
            steps=chosen.steps,
        )
        size = chosen.kernel_size
        # Not a number, so that nothing uses the true kernel unnoticed.
        unknown = task.blurred.new_full((1, 1, size, size), float("nan"))
        return self.method(Task(task.blurred, unknown, settings, task.device, task.progress))
