"""Units here and in worker processes: each once, none lost with a worker, no worker left behind."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import worker_tasks

from sfm_match.errors import NothingDone
from sfm_match.job.executor import WorkerLost, done_units
from sfm_match.job.progress import Clock
from sfm_match.job.worker_processes import ProcessPool

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"], ["cuda", "cuda:1", "cpu"]])
def test_each_unit_once(devices: list[str], tmp_path: Path) -> None:
    units, clock = range(12), Clock()
    done: list[tuple[int, float | None]] = []

    def advance(count: int, work: float | None = None, /) -> None:
        done.append((count, work))

    receipts = list(done_units(devices, partial(worker_tasks.square, tmp_path), units, tmp_path, advance, clock))
    assert sorted(unit for unit, _, _ in receipts) == list(units)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(n): str(n * n) for n in units}
    assert sorted(done) == [(1, float(n)) for n in units]
    processes = {process for _, _, process in receipts}
    assert (processes == {os.getpid()}) == (len(devices) == 1)
    assert len(processes) <= len(devices)
    assert set(clock.spent) == {"work"}
    assert {device for _, device, _ in receipts} <= set(devices)


def test_no_more_workers_than_units(tmp_path: Path) -> None:
    work = partial(worker_tasks.square, tmp_path)
    receipts = list(done_units(["cpu"] * 3, work, [5], tmp_path, lambda *_: None, Clock()))
    assert [unit for unit, _, _ in receipts] == [5]
    assert list(done_units(["cpu"] * 2, work, [], tmp_path, lambda *_: None, Clock())) == []


class WaitingWorker:
    """For whom there is no place."""

    pid, deaths, cause = None, 0, ""

    def __init__(self, device: str, end: Callable[[], None]) -> None:
        self.device, self.end, self.holding = device, end, deque[Any]()


class FullCluster(ProcessPool):
    """Has a place for one worker; the others wait for theirs."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def start(self, work: Any, device: str, deaths: int) -> Any:
        if device == "cpu":
            return super().start(work, device, deaths)
        return WaitingWorker(device, lambda: self.ended.append(device))

    def hear(self, workers: Any) -> Any:
        running = [worker for worker in workers if worker.device == "cpu"]
        assert running, "waits for a worker that has nothing to do"
        return super().hear(running)


def test_workers_that_never_began_are_not_waited_for(tmp_path: Path) -> None:
    """A cluster that is full: others hold its processors, and one worker does all there is to do."""
    pool = FullCluster()
    work = partial(worker_tasks.square, tmp_path)
    receipts = list(done_units(["cpu", "cuda"], work, range(4), tmp_path, lambda *_: None, Clock(), pool))
    assert [unit for unit, _, _ in receipts] == [0, 1, 2, 3]
    assert pool.ended == ["cuda"]


def test_a_worker_that_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its units are done by the next, those it had finished are not done again."""
    work = partial(worker_tasks.killed_at_three, tmp_path)
    receipts = list(done_units(["cpu", "cpu"], work, range(8), tmp_path, lambda *_: None, Clock()))
    assert sorted(unit for unit, _, _ in receipts) == list(range(8))
    assert "the worker on cpu was lost (killed by signal 9); another one takes its place" in caplog.text


def test_a_unit_that_kills_every_worker_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "always").touch()
    work = partial(worker_tasks.killed_at_three, tmp_path)
    receipts: list[object] = []
    with pytest.raises(WorkerLost, match=r"worker on cpu was lost 2 times \(killed by signal 9\).*smaller --batch"):
        receipts.extend(done_units(["cpu", "cpu"], work, range(8), tmp_path, lambda *_: None, Clock()))
    assert (tmp_path / "0").exists()


def test_errors_of_workers_are_errors_of_the_job(tmp_path: Path) -> None:
    work = partial(worker_tasks.refusing, tmp_path)
    with pytest.raises(NothingDone, match="no such thing"):
        list(done_units(["cuda", "cuda"], work, range(4), tmp_path, lambda *_: None, Clock()))
    with pytest.raises(RuntimeError, match="in a worker: ZeroDivisionError: by nothing"):
        list(done_units(["cpu", "cpu"], work, range(4), tmp_path, lambda *_: None, Clock()))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_leave_with_the_job(end: signal.Signals, tmp_path: Path) -> None:
    """Killed with -9 or interrupted: no worker goes on writing."""
    code = (
        # a shell that starts the tests in the background has them, and this, ignore SIGINT
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from functools import partial\nfrom pathlib import Path\nimport worker_tasks\n"
        "from sfm_match.job.executor import done_units\nfrom sfm_match.job.progress import Clock\n"
        f"work = partial(worker_tasks.endless, Path({str(tmp_path)!r}))\n"
        "list(done_units(['cpu', 'cpu'], work, range(4), Path('.'), lambda *_: None, Clock()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as job:
        workers: list[int] = []
        until = time.monotonic() + 60
        while len(workers) < 2 and time.monotonic() < until:
            time.sleep(0.05)
            workers = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
        assert len(workers) == 2
        job.send_signal(end)
        job.wait(30)
    until = time.monotonic() + 20
    while any(map(_lives, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_lives, workers))


def _lives(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[:1]
    except OSError:
        return False
