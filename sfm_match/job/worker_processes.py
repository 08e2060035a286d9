"""Workers that are processes of this machine. They are spawned, not forked: one that has used CUDA cannot be forked."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from sfm_match.errors import SfmMatchError
from sfm_match.job.log import show_on_stderr, shown_on_stderr
from sfm_match.job.progress import Clock
from sfm_match.signals import receive_blocked

_LEAVE_SECONDS = 10.0  # for a worker that was told to end


class WorkerProcess:
    """A process, and the units that it was given and has not done."""

    def __init__(self, work: Any, device: str, deaths: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.device, self.deaths = device, deaths
        self.holding: deque[Any] = deque()
        self.connection, theirs = spawning.Pipe()
        self.process = spawning.Process(target=_live, args=(theirs, work, device, shown_on_stderr()), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Of a process of this machine."""
        return self.process.pid

    @property
    def cause(self) -> str:
        """Why it was lost."""
        code = self.process.exitcode or 0
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def give(self, unit: Any) -> None:
        """The next unit, or None where there is no more."""
        try:
            self.connection.send(unit)
        except ConnectionError:  # it is lost; reading from it will tell
            return

    def end(self) -> None:
        """Ends it, whatever it does."""
        self.connection.close()
        self.process.terminate()
        self.process.join(_LEAVE_SECONDS)
        self.process.kill()
        self.process.join()


class ProcessPool:
    """Starts worker processes and hears them (an `executor.Pool`)."""

    option = "--devices"

    def start(self, work: Any, device: str, deaths: int) -> WorkerProcess:
        return WorkerProcess(work, device, deaths)

    def hear(self, workers: Sequence[WorkerProcess]) -> Iterator[tuple[WorkerProcess, tuple[str, Any] | None]]:
        """Waits until some of the workers have said something, or are lost: then it is None."""
        ready = wait([worker.connection for worker in workers])
        for worker in [worker for worker in workers if worker.connection in ready]:
            try:
                yield worker, worker.connection.recv()
            except (EOFError, ConnectionError):
                yield worker, None


def serve(work: Any, device: str, say: Callable[[str, Any], None], receive: Callable[[], Any]) -> None:
    """A worker's life, wherever it is: it asks for units, does them, and tells what becomes of them.

    Args:
        work: an `executor.Work`.
        device: as `devices.choose` takes it.
        say: one of `wants`, `advance` (how many, and how much work), `done` (a receipt), `end` (where the time went),
            `failed` (why).
        receive: waits for the unit that was asked for; None: there is no more.

    Raises:
        EOFError, BrokenPipeError: whoever gives the units is gone.
    """

    def given() -> Iterator[Any]:
        while True:
            say("wants", None)
            unit = receive()
            if unit is None:
                return
            yield unit

    clock = Clock()
    try:
        for receipt in work(device, given(), lambda *done: say("advance", done), clock):
            say("done", receipt)
        say("end", clock.spent)
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - it is raised where the job is
        told = RuntimeError(f"in a worker: {type(error).__name__}: {error}")
        say("failed", error if isinstance(error, SfmMatchError | OSError) else told)


def _live(connection: Connection, work: Any, device: str, show: bool) -> None:
    if show:
        show_on_stderr()
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to all; the coordinator ends its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    receive_blocked()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sending = threading.Lock()

    def say(kind: str, value: Any) -> None:
        with sending:
            connection.send((kind, value))

    try:
        serve(work, device, say, connection.recv)
    except (EOFError, BrokenPipeError):  # the coordinator is gone
        os._exit(1)


def _leave_with_parent() -> None:
    """A coordinator that was killed takes its workers with it: they would write into a workspace without its lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
