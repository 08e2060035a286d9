"""SIGINT, SIGTERM and SIGHUP at the command line: it ends within three seconds, whatever it is doing.

A signal is an exception in the main thread, `Interrupted`, and everything is closed on its way out. The main thread may
be in a long call of a native library, though, which Python cannot leave: when `GRACE` seconds have passed, or a second
signal comes, a thread of ours removes what is not finished and ends the process.

Nothing here touches the handlers of a program that uses sfm-match as a library.
"""

import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

GRACE = 2.0  # seconds in which the main thread may close what is open
LINE = "interrupted; run the same command again to resume"
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# glog, which comes with pycolmap, sets a handler of SIGTERM that prints a stack trace. Blocked in all threads, the
# signal never comes to it: a thread of ours waits for it.
_BLOCKED = {signal.SIGTERM} if hasattr(signal, "pthread_sigmask") else set[signal.Signals]()
_unfinished: dict[object, Callable[[], None]] = {}  # what removes it
_watch: "_Watch | None" = None
_saying = threading.Lock()
_SAY_SECONDS = 0.5


class Interrupted(KeyboardInterrupt):
    """One of the signals came."""


def received() -> int | None:
    """The number of the signal that came, if one did."""
    return None if _watch is None else _watch.received


@contextmanager
def removed_if_stopped(*paths: Path, remove: Callable[[], None] | None = None) -> Iterator[None]:
    """Files and folders that are not to be left behind when the process ends inside the block, or what removes them."""
    key = object()
    _unfinished[key] = remove or partial(remove_all, paths)
    try:
        yield
    finally:
        del _unfinished[key]


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """An empty folder that is gone afterwards, also where a second signal comes while it is removed."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    with removed_if_stopped(path):
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def handled() -> Iterator[None]:
    """Inside, signals act as the module says; a signal that is ignored (`nohup`) stays so. The process ends with it.

    Nested blocks and those outside of the main thread do nothing.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch = watch = _Watch()
    try:
        yield
    except KeyboardInterrupt:
        if watch.received is None:
            raise
    finally:
        if watch.received is not None:
            say()  # here, because a library on the way may have taken the exception for its own
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(128 + watch.received)
        watch.end()
        _watch = None


def receive_blocked() -> None:
    """What a new process inherits blocked comes to it again."""
    if _BLOCKED:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)


def say() -> None:
    """The line about it, once. Not by `print`, whose lock another thread may hold.

    Whoever comes second waits until it is written, but not for a terminal that takes nothing: it ends the process then.
    """
    held = _saying.acquire(timeout=_SAY_SECONDS)
    try:
        if _watch is None or not _watch.said:
            _write(f"sfm-match: {LINE}\n".encode())
        if _watch is not None:
            _watch.said = True
    finally:
        if held:
            _saying.release()


class _Watch:
    """Handlers, and the threads that wait for signals."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.said = self._raised = False
        taken = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self._before = {number: signal.getsignal(number) for number in {*taken, signal.SIGINT}}
        self._taken = set(taken)
        for number in self._before:
            signal.signal(number, self._handle)
        self._reading, self._writing = map(_not_a_stream, os.pipe())
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._quiet_unraisable
        self._thread_error, threading.excepthook = threading.excepthook, self._quiet_thread
        self._ended = False
        self._terminated: threading.Thread | None = None
        if _BLOCKED and self._taken >= _BLOCKED:
            signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
            self._terminated = threading.Thread(target=self._wait_for_blocked, daemon=True, name="SIGTERM")
            self._terminated.start()
        threading.Thread(target=self._wait, daemon=True, name="signals").start()

    def end(self) -> None:
        """All as it was before."""
        self._ended = True
        sys.unraisablehook, threading.excepthook = self._unraisable, self._thread_error
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._terminated is not None:
            signal.pthread_kill(self._terminated.ident or 0, signal.SIGTERM)
            self._terminated.join()
            receive_blocked()
        os.close(self._writing)  # the thread reads the end, and ends

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None and number in self._taken:
            self.received = number
        if self.received is not None and not self._raised:
            self._raised = True
            raise Interrupted

    def _wait_for_blocked(self) -> None:
        """A thread. Hands SIGTERM on: as SIGINT to the main thread, which wakes it, and to the other thread."""
        while not self._ended:
            number = signal.sigwait(_BLOCKED)
            if not self._ended:
                self.received = self.received or number
                os.write(self._writing, bytes([number]))
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _wait(self) -> None:
        """A thread. A byte comes for every signal, at once, whatever the main thread is doing."""
        first = self._read()
        if first is not None:
            second, until = None, time.monotonic() + GRACE
            while second is None and select.select([self._reading], [], [], max(0.0, until - time.monotonic()))[0]:
                second = self._read(handed_on=first in _BLOCKED)
            self._leave(first)
        os.close(self._reading)

    def _read(self, handed_on: bool = False) -> int | None:
        """The next of our signals; None at the end, or for one that is only handed on."""
        while byte := os.read(self._reading, 1):
            if handed_on and byte[0] == signal.SIGINT:
                return None
            if byte[0] in self._taken:
                return byte[0]
        return None

    def _leave(self, number: int) -> None:
        if "multiprocessing" in sys.modules:
            for process in sys.modules["multiprocessing"].active_children():
                process.kill()
        for remove in list(_unfinished.values()):
            with suppress(Exception):  # the main thread may be removing the same
                remove()
        if not self.said and sys.__stderr__ is not None and os.isatty(2):
            _write(b"\n")  # below the bar
        say()
        os._exit(128 + number)

    def _quiet_unraisable(self, what: Any) -> None:
        """A signal that came in a destructor or a callback: the thread acts on it."""
        if self.received is None or not isinstance(what.exc_value, KeyboardInterrupt):
            self._unraisable(what)

    def _quiet_thread(self, what: Any) -> None:
        """Threads that lose their files, or what they wait for, have nothing to say about it."""
        if self.received is None:
            self._thread_error(what)


def _write(text: bytes) -> None:
    """To standard error, if it is that: where it was closed, 2 may be any file."""
    if sys.__stderr__ is not None:
        with suppress(OSError):  # the terminal is gone
            os.write(2, text)


def _not_a_stream(descriptor: int) -> int:
    """The same pipe, not in the place of a standard stream that was closed."""
    if descriptor > 2:
        return descriptor
    moved = _not_a_stream(os.dup(descriptor))
    os.close(descriptor)
    return moved


def remove_all(paths: Iterable[Path]) -> None:
    """Files, folders with what is in them, and what is not there."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for _ in range(3):  # a native thread may still be writing into it
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
