"""A hostile case: what is made in a folder, the command that is run on it, and what may come of it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from campaign import isolated, job
from campaign.isolated import Conditions, Finished

MOST_LINES = 12  # on stderr: a few of each stage
SAID = frozenset({0, 1, 2, 3})  # done, or said why not
REFUSED = frozenset({2, 3})


@dataclass(frozen=True)
class Case:
    """One of a kind."""

    name: str  # unique
    kind: str
    make: Callable[[Path], list[str]]  # writes what the case needs into a folder; returns the command's arguments
    statuses: frozenset[int] = SAID  # that are right
    conditions: Conditions = job.SMALL_UNITS
    during: Callable[[Path], None] | None = None  # beside the command, in a thread, from its start on
    check: Callable[[Path, Finished], str] | None = None  # what is wrong with what it left, or ""
    seconds: float = isolated.SECONDS


@dataclass(frozen=True)
class Verdict:
    """Of one run of a case."""

    case: str
    kind: str
    fault: str  # crash, hang, traceback, internal error, wrong status, many lines, a check's words; "": as it should be
    status: int
    seconds: float
    command: str
    err: str  # its last lines

    @property
    def group(self) -> str:
        """The fault, without what is of this run only."""
        return self.fault.split(":")[0].split(" (")[0] or "ok"


def judged(case: Case, folder: Path) -> Verdict:
    """Makes a case in an empty folder, and runs it."""
    arguments = case.make(folder)
    commands = isolated.Commands([arguments], folder, case.conditions)
    if case.during is not None:
        beside = Thread(target=case.during, args=(folder,), daemon=True)
        beside.start()
    ended = commands.finish(case.seconds)
    lines = [line for line in "".join(ended.err).splitlines() if line.strip()]
    shown = json.dumps([one[:120] for one in arguments], ensure_ascii=True)
    text = " | ".join(lines[-2:])[-400:]
    if case.during is not None:
        beside.join(case.seconds)
    return Verdict(case.name, case.kind, _fault(case, folder, ended, lines), _status(ended), ended.seconds, shown, text)


def _status(ended: Finished) -> int:
    return -1 if ended.hung else ended.status


def _fault(case: Case, folder: Path, ended: Finished, lines: list[str]) -> str:
    if ended.fault():
        return ended.fault()
    if ended.status not in case.statuses:
        return f"wrong status ({ended.status}, not {sorted(case.statuses)})"
    if len(lines) > MOST_LINES:
        return f"many lines ({len(lines)})"
    if ended.status in REFUSED and not lines and not ended.out[-1] and 2 not in case.conditions.closed:
        return "no line"
    return case.check(folder, ended) if case.check is not None else ""


def unique(cases: Iterable[Case]) -> list[Case]:
    """The cases, whose names must differ."""
    every = list(cases)
    names = [one.name for one in every]
    if len({*names}) < len(names):
        raise ValueError(f"cases of one name: {sorted({name for name in names if names.count(name) > 1})[:5]}")
    return every
