"""Work for the processes of a Ray cluster, each of which keeps what it has loaded.

These are actors of Ray, not a dataset of Ray Data. That retries in the process that was lost, and counts it as
an attempt at the batches that waited there, too; it keeps all of its input as blocks; and it took seven times
as long to hand out a batch (13 ms against 1.8 ms).
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..errors import UserError

log = logging.getLogger("latentdem.distributed")

ATTEMPTS = 3  # at a batch, and at starting a process
_LOOK_EVERY = 5.0  # seconds between looks at how large the cluster is
_STORE = 100 * 2**20  # bytes of a local cluster's object store: no pixels go through it

Batch = TypeVar("Batch")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)


class Worker(Protocol[Given, Made]):
    """What a process does."""

    def prepare(self) -> None:
        """Loads what all batches need."""
        ...

    def work(self, batch: Given) -> Made:
        """Does one batch. What it raises ends the run."""
        ...


def require_ray() -> None:
    """Makes sure that Ray is installed, and that it will not speak between our messages.

    Raises:
        UserError: it is not, or what Parquet needs is not.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # messages about lost processes; read by the import
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"This needs {error.name}; install with: pip install ray pyarrow fsspec") from None


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to the Ray cluster at `address`, or a cluster of this machine that ends with the block.

    Nothing that Ray says of itself is printed. A local cluster has no dashboard, reports no usage, and its
    processes have the priority of this one (Ray's default is a lower one).

    Raises:
        UserError: Ray is not installed, or there is no cluster, or it asks for a token that is not given.
    """
    require_ray()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        os.environ.setdefault("RAY_worker_niceness", "0")
        quiet |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        with _unheard():
            ray.init(address or "local", **quiet)
    except Exception as error:  # Ray has no class for this
        raise UserError(_no_way(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _unheard() -> Iterator[None]:
    """Drops what native code writes to standard error; Ray does that for each of 20 attempts to connect."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _no_way(address: str | None, error: Exception) -> str:
    """Why there is no cluster."""
    causes = [error, error.__cause__] if error.__cause__ else [error]
    if any("AuthenticationError" in f"{type(cause).__name__}: {cause}" for cause in causes):
        return (  # Ray sends a token to an address that is given only if told so
            f"The Ray cluster at {address} wants its token, which is sent where RAY_AUTH_MODE=token is set; it "
            "is read from the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token."
        )
    reason = " ".join(str(error).split())[:200].rstrip(".")
    if address is None:
        return f"Ray does not start on this machine: {reason}."
    return f"There is no way to the Ray cluster at {address}: {reason}; check --address."


@dataclass(frozen=True)
class Share:
    """What each process takes of the cluster: processor cores, and GPUs."""

    cores: int
    gpus: int

    def processes(self) -> int:
        """How many there is room for on the nodes of the cluster."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = [int(node.get("CPU", 0) // self.cores) for node in nodes]
        if self.gpus:
            room = [min(n, int(node.get("GPU", 0) // self.gpus)) for n, node in zip(room, nodes, strict=True)]
        return sum(room)


@dataclass
class _Lent(Generic[Batch]):
    """A batch that a process works on, and at which attempt."""

    batch: Batch
    attempt: int = 1


class Pool(Generic[Batch, Result]):
    """As many processes as the cluster has room for, now and later.

    A process holds one batch at a time; the others wait here. One that is lost is replaced where there is room,
    and its batch goes to the next process that is free.

    Args:
        make: makes the worker of a process, in that process.
        share: what each takes of the cluster.
        most: processes to start.
    """

    def __init__(self, make: Callable[[], Worker[Batch, Result]], share: Share, most: int) -> None:
        self._make, self._share, self._most = make, share, most
        self._busy: dict[Any, tuple[Any, _Lent[Batch] | None]] = {}  # what is awaited, of which process
        self._idle: list[Any] = []
        self._again: deque[_Lent[Batch]] = deque()
        self._unready = 0  # processes that were lost before they were ready, one after the other
        self._looked = -math.inf  # when the pool last looked how many there is room for

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Result | None]]:
        """Every batch once with its result, in the order of completion.

        The result is None where the processes of all `ATTEMPTS` at it were lost. What a process had done of its
        batch when it was lost is done again.

        Raises:
            UserError: there is no room for a process, or processes cannot be prepared.
        """
        import ray

        waiting: Iterator[_Lent[Batch]] = map(_Lent, batches)
        ended = False
        try:
            self._grow()
            if not self._busy:
                needed = f"{self._share.cores} cores" + (" and a GPU" if self._share.gpus else "")
                raise UserError(
                    f"No node of the Ray cluster has {needed}; check --cores, --device and --address."
                )
            while True:
                if (not ended or self._again) and time.monotonic() - self._looked > _LOOK_EVERY:
                    self._grow()
                while self._idle and not (ended and not self._again):
                    lent = self._again.popleft() if self._again else next(waiting, None)
                    if lent is None:
                        ended = True
                    else:
                        process = self._idle.pop()
                        self._busy[process.work.remote(lent.batch)] = process, lent
                if ended and not self._again and not any(lent for _, lent in self._busy.values()):
                    return
                if not self._busy:  # the nodes are lost
                    time.sleep(_LOOK_EVERY)
                    continue
                done, _ = ray.wait(list(self._busy), timeout=_LOOK_EVERY)
                for awaited in done:
                    yield from self._received(awaited)
        finally:
            for process in (*self._idle, *(process for process, _ in self._busy.values())):
                ray.kill(process)

    def _grow(self) -> None:
        """Starts the processes that there is room for."""
        import ray

        self._looked = time.monotonic()
        actor: Any = ray.remote(_Actor)
        actor = actor.options(num_cpus=self._share.cores, num_gpus=self._share.gpus)
        have = len(self._busy) + len(self._idle)
        for _ in range(min(self._share.processes(), self._most) - have):
            process = actor.remote(self._make)
            self._busy[process.prepare.remote()] = process, None

    def _received(self, awaited: Any) -> Iterator[tuple[Batch, Result | None]]:
        """What comes of an answer: a batch that is done or given up, or nothing."""
        import ray

        process, lent = self._busy.pop(awaited)
        try:
            result = ray.get(awaited)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        except ray.exceptions.RayError as error:
            ray.kill(process)  # which may be cut off and still at work
            self._looked = -math.inf
            if lent is None:
                self._unready += 1
                if self._unready == ATTEMPTS:
                    reason = " ".join(str(error).split())[:200].rstrip(".")
                    raise UserError(f"The processes of Ray end before they are ready: {reason}.") from error
            elif lent.attempt == ATTEMPTS:
                yield lent.batch, None
            else:
                log.warning("A process of the cluster was lost; what it had in hand is done again.")
                self._again.append(_Lent(lent.batch, lent.attempt + 1))
            return
        self._unready = 0
        self._idle.append(process)
        if lent is not None:
            yield lent.batch, result


class _Actor:
    """The process of a worker."""

    def __init__(self, make: Callable[[], Worker[Any, Any]]) -> None:
        self._worker = make()

    def prepare(self) -> None:
        self._worker.prepare()

    def work(self, batch: Any) -> Any:
        return self._worker.work(batch)
