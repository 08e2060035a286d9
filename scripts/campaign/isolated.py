"""Command lines in processes that may crash, hang or be killed. Each is forked from a server that has loaded all.

A process of its own costs some milliseconds so, instead of the second that Python takes to load the libraries.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

SECONDS = 20.0  # a command that takes longer hangs
INTERNAL = "internal error"
LIMITS = {"as": resource.RLIMIT_AS, "fsize": resource.RLIMIT_FSIZE, "nofile": resource.RLIMIT_NOFILE}
PYTHON = "-c"  # as the first argument: the second one is Python, not a command of sfm-match
MARK = "sfm-match-campaign"
STREAMS = ("out", "err")
_STARTING = threading.Lock()


@dataclass(frozen=True)
class Finished:
    """What became of some commands."""

    statuses: list[int]  # of those that ended: exit statuses
    signal: int  # that ended the process; 0: none
    hung: bool
    out: list[str]  # of each command that began
    err: list[str]
    seconds: float

    @property
    def status(self) -> int:
        """Of the last command, as a shell shows it."""
        return 128 + self.signal if self.signal else self.statuses[-1]

    def fault(self) -> str:
        """What no command should do: crash, hang, traceback or internal error; empty where it did none of these."""
        everything = "\n".join(self.err)
        if self.hung:
            return "hang"
        if self.signal:
            return f"crash ({signal.Signals(self.signal).name})"
        if "Traceback (most recent call last)" in everything:
            return "traceback"
        return INTERNAL if INTERNAL in everything else ""


@dataclass(frozen=True)
class Conditions:
    """Around a command."""

    limits: Mapping[str, int] = field(default_factory=dict)  # of LIMITS, in bytes or files
    closed: tuple[int, ...] = ()  # descriptors that are closed: 1, 2
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None  # in the process, before the command; a function of a module


class Commands:
    """A process that runs command lines one after another; its files are in a folder of its own."""

    def __init__(
        self, commands: Sequence[Sequence[object]], folder: Path | None = None, conditions: Conditions | None = None
    ) -> None:
        """
        Args:
            commands: arguments of each.
            folder: where they run; None: a new one.
            conditions: of the process.
        """
        self._place = tempfile.TemporaryDirectory(prefix=MARK)
        self._streams = Path(self._place.name)
        self._count = len(commands)
        texts = [[str(argument) for argument in one] for one in commands]
        where = folder if folder is not None else self._streams
        self._process: ForkServerProcess = _server().Process(
            target=_run, args=(texts, str(where), str(self._streams), conditions or Conditions())
        )
        self._started = time.monotonic()
        with _STARTING, _searched():
            self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def out(self, command: int = 0) -> str:
        """Standard output of a command so far."""
        path = self._streams / f"{command}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """Ends the process at once, as `kill -9` does."""
        self._process.kill()

    def finish(self, seconds: float = SECONDS) -> Finished:
        """Waits for the end, which comes by force after `seconds` for each command."""
        self._process.join(max(0.0, seconds * self._count - (time.monotonic() - self._started)))
        hung = self._process.exitcode is None
        if hung:
            self._process.kill()
            self._process.join()
        took, code = time.monotonic() - self._started, int(self._process.exitcode or 0)
        ended = [self._streams / f"{i}.status" for i in range(self._count)]
        statuses = [int(path.read_text()) for path in ended if path.exists()]
        begun = [i for i in range(self._count) if (self._streams / f"{i}.out").exists()]
        texts = {end: [(self._streams / f"{i}.{end}").read_text(errors="replace") for i in begun] for end in STREAMS}
        self._process.close()
        self._place.cleanup()
        if not hung and code == 0 and len(statuses) < self._count:  # by os._exit(0) or so
            statuses.append(0)
        if code > 0:
            statuses.append(code)
        return Finished(statuses, 0 if hung else max(0, -code), hung, texts["out"], texts["err"], took)


def run(
    *commands: Sequence[object],
    folder: Path | None = None,
    conditions: Conditions | None = None,
    seconds: float = SECONDS,
) -> Finished:
    """Runs command lines, one after another, in one process that is forked for them."""
    return Commands(commands, folder, conditions).finish(seconds)


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["campaign.loaded"])
    return context


@contextlib.contextmanager
def _searched() -> Iterator[None]:
    """The server finds the modules where this process finds them, and its children do not run `__main__` anew."""
    main, kept = sys.modules["__main__"], os.environ.get("PYTHONPATH")
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept


def _run(commands: list[list[str]], folder: str, streams: str, conditions: Conditions) -> None:
    """In the process."""
    os.chdir(folder)
    os.environ.update(conditions.environment)
    for name, most in conditions.limits.items():
        resource.setrlimit(LIMITS[name], (most, resource.RLIM_INFINITY if name == "fsize" else most))
    if "fsize" in conditions.limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if conditions.before is not None:
        conditions.before()
    for number, arguments in enumerate(commands):
        _redirect(1, Path(streams, f"{number}.out"), closed=1 in conditions.closed)
        _redirect(2, Path(streams, f"{number}.err"), closed=2 in conditions.closed)
        status = _status_of(arguments)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)  # not for what follows
        Path(streams, f"{number}.status").write_text(str(status))


def _redirect(descriptor: int, path: Path, *, closed: bool) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, descriptor)
    os.close(file)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    errors = errors or {1: "strict", 2: "backslashreplace"}[descriptor]  # as Python opens its streams
    stream = os.fdopen(descriptor, "w", encoding=encoding, errors=errors, closefd=False)
    setattr(sys, {1: "stdout", 2: "stderr"}[descriptor], stream)
    if closed:
        os.close(descriptor)


def _status_of(arguments: list[str]) -> int:
    from sfm_match.cli.main import main

    sys.argv = ["sfm-match", *arguments]
    try:
        if arguments[:1] == [PYTHON]:
            return _status_of_python(arguments[1])
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - what Python itself would print
        traceback.print_exc()
        return 1
    return 0


def _status_of_python(code: str) -> int:
    """A script, in which errors of sfm-match are said as the command line says them."""
    from sfm_match.errors import SfmMatchError

    try:
        exec(compile(code, "script", "exec"), {"__name__": "script"})
    except SfmMatchError as error:
        print(f"sfm-match: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def written(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Results as lines of JSON, appended: those that are there survive the end of a campaign."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in results)


def read(path: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
