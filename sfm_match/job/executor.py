"""The units of a stage, done here or by worker processes, one a device.

The caller holds the workspace, a worker never opens it: it takes units, writes their files and returns receipts. A
worker is spawned, not forked, because a process that has used CUDA cannot be forked.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sfm_match.errors import SfmMatchError
from sfm_match.job.log import LOGGER, show_on_stderr, shown_on_stderr
from sfm_match.job.progress import Clock
from sfm_match.signals import receive_blocked
from sfm_match.store.shard import remove_leftovers

U = TypeVar("U")  # a unit
R = TypeVar("R")  # its receipt
U_contra = TypeVar("U_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

DEATHS = 2  # of a device's worker in a row, without a unit finished between, that end the job
_LEAVE_SECONDS = 10.0  # for a worker that was told to end


class Work(Protocol[U_contra, R_co]):
    """Does units on a device. It is picklable, and so are units and receipts."""

    def __call__(
        self, device: str, units: Iterator[U_contra], advance: Callable[[int], None], clock: Clock, /
    ) -> Iterator[R_co]:
        """Receipts in the order of the units; a unit's file is on the disk before its receipt is given.

        Args:
            device: as `devices.choose` takes it.
            units: taken as they are needed, some ahead.
            advance: told how many images or pairs are done; from any thread.
            clock: told what takes the time.
        """


class WorkerLost(SfmMatchError):
    """A worker process ended before its work did, and again when it was tried once more."""


def done_units(
    devices: Sequence[str],
    work: Work[U, R],
    units: Sequence[U],
    folder: Path,
    advance: Callable[[int], None],
    clock: Clock,
) -> Iterator[R]:
    """Does units: in this process with one device, otherwise in a worker process for each.

    Args:
        devices: as `devices.devices_of` gives them.
        work: what to do.
        units: each is done once; with several workers each takes the next one that nobody has.
        folder: of their files.
        advance: as in `Work`.
        clock: of the stage; of several workers it gets the mean.

    Raises:
        WorkerLost: a worker was killed twice. Its units are not done; files that are there are whole.
    """
    if len(devices) == 1:
        yield from work(devices[0], iter(units), advance, clock)
        return
    try:
        yield from _Coordinator(devices[: max(1, len(units))], work, units, advance, clock).run()
    finally:
        remove_leftovers(folder)  # of workers that were lost; none lives any more


def threads_each(asked: int, workers: int = 1) -> int:
    """Threads of each of some worker processes: as many as asked for, or (0) its share of the cores."""
    return asked or max(1, (os.cpu_count() or 1) // workers)


class _Worker(Generic[U]):
    """A process, and the units that it was given and has not done."""

    def __init__(self, device: str, work: Work[U, Any], deaths: int = 0) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.device, self.deaths = device, deaths
        self.holding: deque[U] = deque()
        self.connection, theirs = spawning.Pipe()
        self.process = spawning.Process(target=_serve, args=(theirs, work, device, shown_on_stderr()), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(_LEAVE_SECONDS)
        self.process.kill()
        self.process.join()


class _Coordinator(Generic[U, R]):
    """Gives units to workers as they ask for them, and to another one when a worker is lost."""

    def __init__(
        self,
        devices: Sequence[str],
        work: Work[U, R],
        units: Sequence[U],
        advance: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self._work, self._advance, self._clock = work, advance, clock
        self._left = deque(units)
        self._devices = devices
        self._spent: list[dict[str, float]] = []

    def run(self) -> Iterator[R]:
        workers: list[_Worker[U]] = []
        try:
            workers += [_Worker(device, self._work) for device in self._devices]
            while workers:
                with self._clock.on("workers"):
                    ready = wait([worker.connection for worker in workers])
                for worker in [worker for worker in workers if worker.connection in ready]:
                    try:
                        kind, value = worker.connection.recv()
                    except (EOFError, ConnectionError):
                        workers.remove(worker)
                        workers.append(self._replaced(worker))
                        continue
                    if kind == "wants":
                        self._give(worker)
                    elif kind == "advance":
                        self._advance(value)
                    elif kind == "done":
                        worker.holding.popleft()
                        worker.deaths = 0
                        yield value
                    elif kind == "failed":
                        raise value
                    else:  # it ends
                        self._spent.append(value)
                        workers.remove(worker)
                        worker.end()
            self._tell_clock()
        finally:
            for worker in workers:
                worker.end()

    def _give(self, worker: _Worker[U]) -> None:
        """The next unit, or None where there is no more."""
        unit = self._left.popleft() if self._left else None
        if unit is not None:
            worker.holding.append(unit)
        try:
            worker.connection.send(unit)
        except ConnectionError:  # it is lost; reading from it will tell
            return

    def _replaced(self, worker: _Worker[U]) -> _Worker[U]:
        """A new worker in place of one that is lost; the units that it had are the next to be given."""
        worker.end()
        code = worker.process.exitcode or 0
        cause = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        deaths = worker.deaths + 1
        if deaths >= DEATHS:
            raise WorkerLost(
                f"--devices: the worker on {worker.device} was lost {deaths} times ({cause}); completed work is kept. "
                "Memory may be short: try fewer devices, or a smaller --batch"
            )
        LOGGER.warning("the worker on %s was lost (%s); another one takes its place", worker.device, cause)
        self._left.extendleft(reversed(worker.holding))
        return _Worker(worker.device, self._work, deaths)

    def _tell_clock(self) -> None:
        """The mean over the workers, in place of the time that this process waited for them."""
        self._clock.spent.pop("workers", None)
        for what in {what for spent in self._spent for what in spent}:
            mean = sum(spent.get(what, 0.0) for spent in self._spent) / len(self._spent)
            self._clock.spent[what] = self._clock.spent.get(what, 0.0) + mean


def _serve(connection: Connection, work: Work[Any, Any], device: str, show: bool) -> None:
    """A worker's life."""
    if show:
        show_on_stderr()
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to all; the coordinator ends its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    receive_blocked()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sending = threading.Lock()

    def say(kind: str, value: Any = None) -> None:
        with sending:
            connection.send((kind, value))

    def given() -> Iterator[Any]:
        while True:
            say("wants")
            unit = connection.recv()
            if unit is None:
                return
            yield unit

    clock = Clock()
    try:
        for receipt in work(device, given(), partial(say, "advance"), clock):
            say("done", receipt)
        say("end", clock.spent)
    except (EOFError, BrokenPipeError):  # the coordinator is gone
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - it is raised where the job is
        say("failed", error if isinstance(error, SfmMatchError | OSError) else RuntimeError(_told(error)))


def _told(error: Exception) -> str:
    return f"in a worker: {type(error).__name__}: {error}"


def _leave_with_parent() -> None:
    """A coordinator that was killed takes its workers with it: they would write into a workspace without its lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
