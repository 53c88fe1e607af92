"""Constants of the blind search, and the scales and rounds that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..operators.blur import HQS
from ..solver.data_weight import DataWeight, ModellingError
from ..solver.passes import Pass


@dataclass(frozen=True)
class Start:
    """One hypothesis of the blind search.

    Attributes:
        width: standard deviation of its first Gaussian kernel in units of K; 0 is a delta.
        level: the denoiser's noise level in units of the kernel's peak; None for the paper's absolute
            sqrt(lambda / delta).
        m_step_from: no M-step above this timestep.
        modelling_error: c of the proximal E-step (see `ModellingError`).
    """

    width: float
    level: float | None = 0.05
    m_step_from: int = 950
    modelling_error: float = 2.0


@dataclass(frozen=True)
class Round:
    """Passes of the hypotheses that are left, after which the best `keep` of each image continue."""

    passes: tuple[Pass, ...]
    hqs: HQS
    keep: int = 1


@dataclass(frozen=True)
class SearchConfig:
    """Constants of the blind search.

    Attributes:
        starts: the hypotheses, run as one batch.
        coarse: rounds at the coarsest scale.
        fine: rounds at every finer scale.
        largest_kernel: above this K the image is halved before the search, again and again.
        halved_kernel: above this K the image is halved too if at least `halved_side` pixels a side are left:
            the search then takes a quarter of the time and sees more of the picture at once.
        consistency: of the pixel-space step after each pass, see `run_passes`.
        sigma_floor: least noise standard deviation assumed at reduced size, for the error of reducing.
    """

    starts: tuple[Start, ...] = (
        Start(0.3),
        Start(0.15),
        Start(0.3, m_step_from=700),
        Start(0.15, m_step_from=700, modelling_error=5.0),
        Start(0.3, m_step_from=550, modelling_error=5.0),
        Start(0.3, modelling_error=5.0),
        Start(0.15, 0.08, m_step_from=700, modelling_error=5.0),
        Start(0.2, m_step_from=700, modelling_error=5.0),
    )
    coarse: tuple[Round, ...] = (
        Round((Pass(30),), HQS(5, 1e6, centre=True), keep=4),
        Round((Pass(40, 600),), HQS(5, 1e6, centre=True), keep=2),
    )
    fine: tuple[Round, ...] = (Round((Pass(40, 500),), HQS(5, 3e6, centre=True)),)
    largest_kernel: int = 40
    halved_kernel: int = 20
    halved_side: int = 112
    consistency: DataWeight = ModellingError(1.0)
    sigma_floor: float = 0.01

    def scales(self, side: int, kernel_size: int) -> list[tuple[int, tuple[Round, ...]]]:
        """(reduction, rounds) for an image of `side` pixels; the last round of all keeps one hypothesis."""
        factor = coarsest_factor(kernel_size, side, self)
        scales = [(factor, self.coarse)]
        while factor > 1:
            factor //= 2
            scales.append((factor, self.fine))
        factor, last = scales[-1]
        scales[-1] = factor, (*last[:-1], replace(last[-1], keep=1))
        return scales


PAPER = SearchConfig(
    starts=(Start(0.0, None, 1000),),
    coarse=(Round((Pass(1000),), HQS(pixels=512 * 512)),),
    fine=(),
    largest_kernel=10**6,
    halved_kernel=10**6,
)
"""Algorithm 1 with the paper's constants, delta for 512 x 512: one run of 1000 steps from a delta kernel."""


def coarsest_factor(kernel_size: int, side: int, config: SearchConfig) -> int:
    """The power of two by which the search of a K x K kernel reduces an image of `side` pixels at first."""
    factor = 1
    while kernel_size / factor > config.largest_kernel or (
        kernel_size / factor > config.halved_kernel and side // (2 * factor) >= config.halved_side
    ):
        factor *= 2
    while factor > 1 and reduced_kernel(kernel_size, factor) > side // factor:
        factor //= 2
    return factor


def reduced_kernel(kernel_size: int, factor: int) -> int:
    """Size of a K x K kernel on an image reduced by `factor` > 1."""
    return kernel_size // factor + 1
