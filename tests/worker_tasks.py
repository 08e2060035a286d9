"""What the workers of tests do: a worker process finds its work by the name of its module."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from sfm_match.errors import NothingDone
from sfm_match.job.progress import Advance, Clock


def square(folder: Path, device: str, units: Iterator[int], advance: Advance, clock: Clock) -> Iterator:
    """Writes `N` with the square of N; the receipt names the device and the process."""
    for unit in units:
        with clock.on("work"):
            time.sleep(0.01)
        (folder / str(unit)).write_text(str(unit * unit))
        advance(1, float(unit))
        yield unit, device, os.getpid()


def killed_at_three(folder: Path, device: str, units: Iterator[int], advance: Advance, clock: Clock) -> Iterator:
    """The first that comes to unit 3 is killed, or all that do where `folder/always` stands."""
    for unit, *receipt in square(folder, device, units, advance, clock):
        if unit == 3 and not (folder / "killed").exists():
            if not (folder / "always").exists():
                (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield unit, *receipt


def refusing(_folder: Path, device: str, units: Iterator[int], _advance: object, _clock: Clock) -> Iterator:
    """Raises an error of ours, or one of Python's."""
    next(units)
    yield 0
    raise NothingDone("no such thing") if device == "cuda" else ZeroDivisionError("by nothing")


def endless(folder: Path, _device: str, units: Iterator[int], _advance: object, _clock: Clock) -> Iterator:
    """Writes its process's number and stays."""
    next(units)
    (folder / f"pid-{os.getpid()}").touch()
    yield 0
    time.sleep(600)
