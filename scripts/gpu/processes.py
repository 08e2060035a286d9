"""A process of its own for each task, that never outlives the one that began it.

On Linux the kernel kills a child when its parent ends, however that ended; a group for each task takes what the task
itself began. Rows come over a pipe of their own, so that what libraries print disturbs nothing.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_GRACE = 10.0  # seconds from the end of the rows to the end of the process
_PIECE = 1 << 16  # bytes


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None) if sys.platform == "linux" else None
    except OSError:
        return None


_LIBC = _libc()  # before any fork: a child after a fork should load nothing


def die_with_parent() -> None:
    """From now on this process is killed when its parent ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _begin(parent: int) -> None:
    """First of all in a child."""
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def run_beside(
    command: Sequence[str], *, seconds: float, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program for a task, which it does not outlive; stderr goes with stdout.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds,
        env=environment,
        cwd=cwd,
        preexec_fn=die_with_parent,
    )


@dataclass
class Ended:
    """How a task's process ended."""

    status: int  # exit status; negative: the signal
    timed_out: bool = False

    def why(self) -> str | None:
        """None where it ended well."""
        if self.timed_out:
            return "took longer than its time"
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}" if self.status else None


@dataclass
class Child:
    """A task's process."""

    pid: int
    rows: int  # file descriptor
    ended: Ended | None = field(default=None)

    def each_row(self, deadline: float) -> Iterator[dict[str, Any]]:
        """Rows as they come, until the process ends or the deadline (`time.monotonic`) comes; then `ended` is set."""
        left = b""
        timed_out = False
        while True:
            wait = deadline - time.monotonic()
            if wait <= 0:
                timed_out = True
                break
            if not select.select([self.rows], [], [], wait)[0]:
                continue
            piece = os.read(self.rows, _PIECE)
            if not piece:
                break
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                yield json.loads(line)
        self.ended = Ended(self._finish(0.0 if timed_out else _GRACE), timed_out)

    def kill(self) -> None:
        """It and all that it began."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # the group may not be made yet
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process where it still runs."""
        if self.ended is None:
            self.ended = Ended(self._finish(0.0))
        os.close(self.rows)

    def _finish(self, patience: float) -> int:
        """Exit status; what does not end by itself is killed."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)  # what it left behind
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start_program(command: Sequence[str], task: dict[str, Any], log: IO[bytes]) -> Child:
    """A fresh program: the task as JSON on its standard input, the number of the pipe for rows in the task."""
    parent = os.getpid()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(writing,), preexec_fn=lambda: _begin(parent)
    )
    os.close(writing)
    process.returncode = 0  # it is waited for here; Popen's own clean-up would take the status away
    if process.stdin is None:
        raise RuntimeError("a process without standard input")
    with suppress(BrokenPipeError), process.stdin as stream:  # one that ended at once says so by its status
        stream.write(json.dumps({**task, "rows": writing}).encode())
    return Child(process.pid, reading)


def start_fork(work: Callable[[dict[str, Any]], None], task: dict[str, Any], log: IO[bytes]) -> Child:
    """A copy of this process, with what it has imported: for machines where that takes longer than a task.

    Not where this process has used a GPU: CUDA does not survive a fork.
    """
    parent = os.getpid()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    status = 1
    try:
        _begin(parent)
        os.close(reading)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        work({**task, "rows": writing})
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this copy must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
