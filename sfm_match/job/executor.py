"""The units of a stage, done here or by workers: processes of this machine, or actors of a Ray cluster.

The caller holds the workspace, a worker never opens it: it takes units, writes their files and returns receipts.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sfm_match.errors import SfmMatchError
from sfm_match.job.cores import cores
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import Advance, Clock
from sfm_match.job.worker_processes import ProcessPool
from sfm_match.store.shard import remove_leftovers

U = TypeVar("U")  # a unit
R = TypeVar("R")  # its receipt
U_contra = TypeVar("U_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Numbered(Protocol):
    """A receipt that knows which unit it is of."""

    @property
    def number(self) -> int: ...


N = TypeVar("N", bound=Numbered)

DEATHS = 2  # of a device's worker in a row, without a unit finished between, that end the job


class Work(Protocol[U_contra, R_co]):
    """Does units on a device. It is picklable, and so are units and receipts."""

    def __call__(self, device: str, units: Iterator[U_contra], advance: Advance, clock: Clock, /) -> Iterator[R_co]:
        """Receipts in the order of the units; a unit's file is on the disk before its receipt is given.

        Args:
            device: as `devices.choose` takes it.
            units: taken as they are needed, some ahead.
            advance: told how many images or pairs are done, and how much work they were; from any thread.
            clock: told what takes the time.
        """


class Worker(Protocol):
    """Somebody who does units, elsewhere."""

    device: str
    deaths: int  # of workers in its place, without a unit finished between
    holding: deque[Any]  # units that it was given and has not done

    @property
    def pid(self) -> int | None:
        """Of a process of this machine."""

    @property
    def cause(self) -> str:
        """Why it was lost."""

    def give(self, unit: Any, /) -> None:
        """The next unit, or None where there is no more."""

    def end(self) -> None:
        """Ends it, whatever it does."""


W = TypeVar("W", bound=Worker)


class Pool(Protocol[W]):
    """Where workers come from."""

    option: str  # that asked for them

    def start(self, work: Any, device: str, deaths: int, /) -> W: ...

    def hear(self, workers: Sequence[W], /) -> Iterable[tuple[W, tuple[str, Any] | None]]:
        """Waits until some of the workers have said something (`worker_processes.serve`), or are lost: None."""


class WorkerLost(SfmMatchError):
    """A worker ended before its work did, and again when it was tried once more."""


def done_units(
    devices: Sequence[str],
    work: Work[U, R],
    units: Iterable[U],
    folder: Path,
    advance: Advance,
    clock: Clock,
    pool: Pool[Any] | None = None,
) -> Iterator[R]:
    """Does units: in this process with one device, otherwise in a worker process for each, or in those of a pool.

    Args:
        devices: as `devices.devices_of` gives them.
        work: what to do.
        units: each is done once; with several workers each takes the next one that nobody has. They are taken as they
            are needed: all of a large job would not be small.
        folder: of their files.
        advance: as in `Work`.
        clock: of the stage; of several workers it gets the mean.
        pool: of workers elsewhere.

    Raises:
        WorkerLost: a worker was killed twice. Its units are not done; files that are there are whole.
    """
    count = length_hint(units, len(devices))  # or more, where nobody knows
    if not count:
        return
    if len(devices) == 1 and pool is None:
        yield from work(devices[0], iter(units), advance, clock)
        return
    coordinator = _Coordinator(devices[:count], work, units, advance, clock, pool or ProcessPool())
    try:
        yield from coordinator.run()
    finally:
        remove_leftovers(folder, coordinator.ended)  # of workers that were lost


def in_order(receipts: Iterator[N]) -> Iterator[N]:
    """Receipts of numbered units, by their numbers from 0: workers end theirs as they can."""
    waiting: dict[int, N] = {}
    number = 0
    for receipt in receipts:
        waiting[receipt.number] = receipt
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def threads_each(asked: int, workers: int = 1) -> int:
    """Threads of each of some worker processes: as many as asked for, or (0) its share of the cores."""
    return asked or max(1, cores() // workers)


class _Coordinator(Generic[U, R]):
    """Gives units to workers as they ask for them, and to another one when a worker is lost."""

    def __init__(
        self,
        devices: Sequence[str],
        work: Work[U, R],
        units: Iterable[U],
        advance: Advance,
        clock: Clock,
        pool: Pool[Any],
    ) -> None:
        self._work, self._advance, self._clock, self._pool = work, advance, clock, pool
        self._left, self._is_over = iter(units), False
        self._again = deque[U]()  # units of workers that were lost
        self._devices = devices
        self._spent: list[dict[str, float]] = []
        self._begun = set[Worker]()  # those that asked for a unit
        self.ended: list[int] = []  # workers that were processes of this machine

    def run(self) -> Iterator[R]:
        workers: list[Worker] = []
        try:
            workers += [self._pool.start(self._work, device, 0) for device in self._devices]
            while self._unfinished(workers):
                with self._clock.on("workers"):
                    heard = list(self._pool.hear(workers))
                for worker, said in heard:
                    if said is None:
                        workers.remove(worker)
                        workers.append(self._replaced(worker))
                        continue
                    kind, value = said
                    if kind == "wants":
                        self._begun.add(worker)
                        self._give(worker)
                    elif kind == "advance":
                        self._advance(*value)
                    elif kind == "done":
                        worker.holding.popleft()
                        worker.deaths = 0
                        yield value
                    elif kind == "failed":
                        raise value
                    else:  # it ends
                        self._spent.append(value)
                        workers.remove(worker)
                        self._end(worker)
            self._tell_clock()
        finally:
            for worker in workers:
                self._end(worker)

    def _unfinished(self, workers: Sequence[Worker]) -> bool:
        """A worker that has not begun when no unit is left is not waited for: on a full cluster that may be long."""
        return bool(workers) and (bool(self._again) or not self._is_over or not self._begun.isdisjoint(workers))

    def _give(self, worker: Worker) -> None:
        unit = self._again.popleft() if self._again else next(self._left, None)
        self._is_over = unit is None
        if unit is not None:
            worker.holding.append(unit)
        worker.give(unit)

    def _end(self, worker: Worker) -> None:
        worker.end()
        if worker.pid is not None:
            self.ended.append(worker.pid)

    def _replaced(self, worker: Worker) -> Worker:
        """A new worker in place of one that is lost; the units that it had are the next to be given."""
        self._end(worker)
        cause, deaths = worker.cause, worker.deaths + 1
        if deaths >= DEATHS:
            raise WorkerLost(
                f"{self._pool.option}: the worker on {worker.device} was lost {deaths} times ({cause}); completed work "
                "is kept. Memory may be short: try fewer devices, or a smaller --batch"
            )
        LOGGER.warning("the worker on %s was lost (%s); another one takes its place", worker.device, cause)
        self._again.extendleft(reversed(worker.holding))
        replacement: Worker = self._pool.start(self._work, worker.device, deaths)
        return replacement

    def _tell_clock(self) -> None:
        """The mean over the workers, in place of the time that this process waited for them."""
        self._clock.spent.pop("workers", None)
        for what in {what for spent in self._spent for what in spent}:
            mean = sum(spent.get(what, 0.0) for spent in self._spent) / len(self._spent)
            self._clock.spent[what] = self._clock.spent.get(what, 0.0) + mean
