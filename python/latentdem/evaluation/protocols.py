"""The paper's tables as data: the methods they compare and their settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..operators.blur import HQS
from ..restoration.config import RestorationConfig, algorithm_1
from ..search.config import PAPER, SearchConfig
from ..solver.e_step import Posterior
from ..solver.schedules import EVERY_STEP, Annealing, Skip
from .baselines import BlindRichardsonLucy, BlindTotalVariation, KnownRichardsonLucy, KnownWiener
from .cases import EvaluationSettings, Method
from .method_names import ALL, NamedMethod, check_names
from .methods import KERNEL_PRIORS, ConfiguredLatentDEM, VanillaEM, deblur_task
from .rivals import RIVALS
from .self_deblur import SelfDeblur

IMAGES = 64
PAPER_SETTINGS = EvaluationSettings(size=256, prior="sd15", steps=1000)
"""Settings that the paper reports its tables for."""


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        name: name on the command line and of the folder of its results.
        title: label in tables and plots.
        method: restores the images.
        non_blind: whether it is given the true kernel.
        on_request: whether it runs only when it is named.
    """

    name: str
    title: str
    method: Method
    non_blind: bool = False
    on_request: bool = False


@dataclass(frozen=True)
class Protocol:
    """A table.

    Attributes:
        title: its title.
        entries: its rows.
        paper: whether it is one of the paper, whose settings a run is compared with.
    """

    title: str
    entries: tuple[Entry, ...]
    paper: bool = True

    def pick(self, names: Collection[str]) -> tuple[Entry, ...]:
        """The entries called `names`, in the order of the table; "all" or none for all but those on request.

        Raises:
            UserError: no entry has one of the names.
        """
        known = [entry.name for entry in self.entries]
        for name in names:
            if name not in (*known, ALL):
                raise UserError(
                    f"This table has no method '{name}'; it has {', '.join(known)}, published:FOLDER and "
                    "command:PROGRAM."
                )
        everything = not names or ALL in names
        return tuple(e for e in self.entries if e.name in names or (everything and not e.on_request))

    def with_methods(self, methods: tuple[NamedMethod, ...]) -> Protocol:
        """The same table with rows for methods of other people.

        Raises:
            UserError: two rows have the same name.
        """
        rows = tuple(Entry(m.name, m.name, m.method, m.non_blind) for m in methods)
        check_names([entry.name for entry in (*self.entries, *rows)])
        return replace(self, entries=(*self.entries, *rows))

    def with_iterations(self, iterations: int) -> Protocol:
        """The same table with this many iterations of Self-Deblur, which has no diffusion steps."""
        return replace(
            self,
            entries=tuple(
                replace(e, method=SelfDeblur(iterations)) if isinstance(e.method, SelfDeblur) else e
                for e in self.entries
            ),
        )


def _fast_em() -> RestorationConfig:
    """This package's search with the M-step of FastDiffusionEM and its constants: 10 iterations, delta 1e5.

    Its noise level is absolute, so it has to start from narrow kernels: lower peaks would be wiped out.
    """
    hqs = HQS(10, 1e5, pixels=256 * 256, per_channel=True)
    search = SearchConfig()
    coarse, fine = (tuple(replace(part, hqs=hqs) for part in rounds) for rounds in (search.coarse, search.fine))
    starts = tuple(replace(start, level=None, width=0.05) for start in search.starts)
    return RestorationConfig(replace(search, starts=starts, coarse=coarse, fine=fine), gradients=None)


_OURS = Entry("proximal", "LatentDEM, proximal (ours)", ConfiguredLatentDEM())
_POSTERIOR = Entry("posterior", "LatentDEM, Algorithm 1", ConfiguredLatentDEM(algorithm_1()), on_request=True)
_VANILLA = Entry("vanilla-em", "vanilla EM", VanillaEM())
_RIVALS = tuple(
    Entry(name, title, RIVALS[name], on_request=True)
    for name, title in (
        ("blinddps", "BlindDPS on our priors"),
        ("blinddps-denoiser", "BlindDPS, score of the denoiser"),
        ("gibbsddrm", "GibbsDDRM on our prior"),
    )
)
"""The paper's blind rivals, as algorithms on the priors of the evaluation."""
_KERNEL_PRIORS = tuple(
    Entry(name, title, KERNEL_PRIORS[name], on_request=True)
    for name, title in (
        ("deblur-kernel-diffusion", "ours, diffusion prior of kernels"),
        ("deblur-no-kernel-prior", "ours, no prior of kernels"),
    )
)

_TABLE_1 = Protocol(
    "Table 1: blind motion deblurring",
    (
        _OURS,
        _POSTERIOR,
        Entry("fastem-m-step", "ours with FastEM's M-step", ConfiguredLatentDEM(_fast_em())),
        _VANILLA,
        *_RIVALS,
        Entry("self-deblur", "Self-Deblur", SelfDeblur()),
        Entry("total-variation", "total variation, blind", BlindTotalVariation()),
        Entry("richardson-lucy", "Richardson-Lucy, blind", BlindRichardsonLucy()),
        Entry("gaussian-guess", "LatentDEM, Gaussian kernel guess", ConfiguredLatentDEM(guess=0.15)),
        Entry("known", "LatentDEM, true kernel", ConfiguredLatentDEM(), non_blind=True),
        Entry("known-wiener", "Wiener, true kernel", KnownWiener(), non_blind=True),
        Entry("known-richardson-lucy", "Richardson-Lucy, true kernel", KnownRichardsonLucy(), non_blind=True),
    ),
)

_TABLE_2 = Protocol(
    "Table 2: skipped gradients",
    tuple(
        Entry(name, title, ConfiguredLatentDEM(algorithm_1(skip=skip)))
        for name, title, skip in (
            ("no-skipping", "no skipping", EVERY_STEP),
            ("skip-500-8", "S_T = 500, K = 8", Skip(500, 8)),
            ("skip-0-8", "S_T = 0, K = 8", Skip(0, 8)),
            ("skip-0-16", "S_T = 0, K = 16", Skip(0, 16)),
        )
    ),
)

_TABLE_6 = Protocol("Table 6: vanilla EM against one diffusion", (_VANILLA, _OURS, _POSTERIOR))


def _variant(name: str, title: str, **changed: Any) -> Entry:
    return Entry(name, title, ConfiguredLatentDEM(algorithm_1(**changed)))


_STEP, _HQS = Posterior(), PAPER.coarse[0].hqs

_ABLATIONS = Protocol(
    "Ablations of Algorithm 1",
    (
        _variant("algorithm-1", "Algorithm 1 (annealing 2, HQS 20, gluing)"),
        *(
            _variant(
                f"annealing-{number}",
                f"annealing {number}: from 10 to {end:g} at t = {t_end}",
                e_step=replace(_STEP, annealing=Annealing(10.0, end, t_end)),
            )
            for number, end, t_end in ((1, 1.0, 800), (3, 1.0, 200), (4, 0.8, 600))
        ),
        *(
            _variant(f"hqs-{count}", f"HQS {count}", hqs=replace(_HQS, iterations=count))
            for count in (5, 10, 15)
        ),
        _variant("no-annealing", "without annealing", e_step=replace(_STEP, annealing=None)),
        _variant("no-gluing", "without gluing", e_step=replace(_STEP, gluing=0.0)),
        _variant(
            "no-annealing-no-gluing",
            "without annealing and gluing",
            e_step=replace(_STEP, annealing=None, gluing=0.0),
        ),
        _variant("second-iteration", "second diffusion, kernel fixed", again=True),
    ),
)

PROTOCOLS = {
    "paper-table1": _TABLE_1,
    "paper-table2": _TABLE_2,
    "paper-table6": _TABLE_6,
    "ablations": _ABLATIONS,
}


def comparison(*, non_blind: bool) -> Protocol:
    """The table of an evaluation with any settings: ours, its rivals, methods of other people."""
    ours = Entry("deblur", "latentdem deblur", deblur_task, non_blind)
    return Protocol("Comparison", (ours, *_KERNEL_PRIORS, *_RIVALS), paper=False)


def check_settings(settings: EvaluationSettings) -> None:
    """Refuses settings that the methods of a table decide for themselves, or do not all support.

    Raises:
        UserError: a setting other than size, kernel size, intensity, noise, seed, prior and steps was changed.
    """
    default = EvaluationSettings()
    for name in ("estimate_noise", "non_blind", "boundary", "margin", "e_step", "without"):
        if getattr(settings, name) != getattr(default, name):
            option = name.replace("_", "-")
            raise UserError(f"The methods of a protocol decide for themselves; leave out --{option}.")


def differences(settings: EvaluationSettings, images: int, entries: tuple[Entry, ...]) -> list[str]:
    """Differences from the settings that the paper reports its tables for, as clauses."""
    steps = None if settings.steps is None else f"{settings.steps} diffusion steps instead of the methods' own"
    clauses = [
        f"{what} {here} instead of {there}"
        for what, here, there in (
            ("images", images, IMAGES),
            ("image size", settings.size, PAPER_SETTINGS.size),
            ("kernel size", settings.kernel_size, PAPER_SETTINGS.kernel_size),
            ("intensity", settings.intensity, PAPER_SETTINGS.intensity),
            ("noise", settings.noise_sigma, PAPER_SETTINGS.noise_sigma),
            ("prior", settings.prior, PAPER_SETTINGS.prior),
        )
        if here != there
    ]
    fits = next((e.method.iterations for e in entries if isinstance(e.method, SelfDeblur)), None)
    if fits not in (None, SelfDeblur().iterations):
        clauses.append(f"{fits} iterations of Self-Deblur instead of {SelfDeblur().iterations}")
    return clauses + ([steps] if steps else [])
