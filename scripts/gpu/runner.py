"""Runs the tasks one after the other, each in its own process, and saves what they say as they say it."""

import json
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from gpu import machine
from gpu.plan import BEGUN, LOST, NONE, PARTS, Settings, Task, tasks
from gpu.processes import Child, Ended, start_fork, start_program
from gpu.rows import END, Results, ResultsError, Row, key_of, read_rows

LEAST = 20.0  # seconds that must be left for a task to begin
_SETTINGS, _CALL = "settings", "call"
_SHOWN = 150  # characters of a row, on the terminal
_AGAIN = 5  # processes of a task after the first
_TAIL = 600  # characters of a log, in a row


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def stamp() -> str:
    """For file names, which then sort by the time."""
    return datetime.now().astimezone().strftime("%Y-%m-%dT%H%M%S")


def place(out: Path, settings: Settings, *, fresh: bool) -> Path:
    """The file of a run: `out` itself where it ends in .jsonl, else the latest in that folder that fits, or a new one.

    Args:
        out: file or folder.
        settings: a file of others does not fit, nor one of another GPU or commit.
        fresh: a new one in any case.
    """
    if out.suffix == ".jsonl":
        return out
    kind = f"gpu_check_{settings.device}{'_quick' if settings.quick else ''}"
    for path in sorted(out.glob(f"*_{kind}.jsonl"), reverse=True) if not fresh else ():
        try:
            rows = read_rows(path)
        except ResultsError:
            continue
        if trouble(rows, settings) is None:
            return path
    return out / f"{stamp()}_{kind}.jsonl"


def trouble(rows: Collection[Row], settings: Settings) -> str | None:
    """Why a file with these rows is not to be gone on with, None where it is."""
    found = _settings_of(rows)
    if found is not None and found != settings.as_json():
        return "made with other settings"
    for call in (row for row in rows if row["part"] == _CALL):
        if (gpu := call["machine"].get("gpu")) != machine.state().get("gpu"):
            return f"begun on another GPU ({gpu})"
        if (commit := call["versions"]["commit"]) != machine.commit():
            return f"begun with another commit ({commit})"
    return None


def _settings_of(rows: Collection[Row]) -> dict[str, Any] | None:
    return next((row[_SETTINGS] for row in rows if row["part"] == _SETTINGS), None)


def is_present(rows: Collection[Row], engine: str) -> bool:
    """Whether an engine was found to be here."""
    return any(row["part"] == "engines" and row["case"] == engine and row["status"] == "ok" for row in rows)


@dataclass
class Runner:
    """A run, or a part of one."""

    results: Results
    settings: Settings
    program: list[str]  # of a task
    log: IO[bytes]
    deadline: float  # time.monotonic
    parts: Collection[str] = ()  # only these; empty: all
    engines: Collection[str] = ()
    fork: Callable[[dict[str, Any]], None] | None = None  # in place of the program

    def run(self) -> bool:
        """Goes on until all is done (True) or time is up. What stands is not done again."""
        self._begin()
        for task in self._wanted():
            if task.end in self.results:
                continue
            if self.deadline - time.monotonic() < (0 if self.settings.quick else LEAST):
                return False
            if not self._one(task):
                return False
        return True

    def _begin(self) -> None:
        """The head of the file: settings, once, and each call."""
        if (why := trouble(self.results.rows, self.settings)) is not None:
            raise ResultsError(f"{self.results.path}: {why}; give another --out")
        self.results.add({"part": _SETTINGS, "case": _SETTINGS, _SETTINGS: self.settings.as_json()})
        number = sum(row["part"] == _CALL for row in self.results.rows)
        here = {"machine": machine.state(), "versions": machine.versions()}
        self.results.add({"part": _CALL, "case": str(number), "at": now(), "command": " ".join(sys.argv), **here})

    def _wanted(self) -> list[Task]:
        """The tasks of this call. Which engines are here is asked first."""
        probe = next(tasks(self.settings, lambda _: True))
        if probe.end not in self.results:
            self._one(probe)
        present = {row["case"] for row in self.results.rows if is_present([row], row["case"])}
        return [
            task
            for task in tasks(self.settings, present.__contains__)
            if (not self.parts or task.part.name in self.parts)
            and (not self.engines or task.engine in (NONE, *self.engines))
        ]

    def _one(self, task: Task) -> bool:
        """A task. False where the time of the whole run ended before it."""
        before, began = machine.state(), time.monotonic()
        limit = began + task.part.minutes * 60
        self.log.write(f"--- {now()} {task.part.name} {task.engine} {task.model}\n".encode())
        self.log.flush()
        start = self.log.tell()
        reasons: list[str] = []
        while True:
            ended, open_case = self._process(task, min(limit, self.deadline))
            if ended.timed_out and time.monotonic() < limit:
                return False  # not its fault: it is gone on with in the next call
            why = "the GPU was lost to its process" if ended.status == LOST else ended.why()
            if why is None:
                break
            reasons.append(why)
            if open_case is not None:
                self._save({**task.head, "case": open_case, "status": "failed", "why": why, "at": now()})
            # a case that ended its process stands now, and the others are tried in another one
            died = ended.status < 0 and not ended.timed_out and open_case is not None
            if not (died or ended.status == LOST) or len(reasons) > _AGAIN:
                break
        row: Row = {**task.head, "case": END, "status": "ok", "at": now()}
        if reasons:
            row |= {"status": "failed", "why": "; ".join(reasons), "log": self._tail(start)}
        row |= {"seconds": round(time.monotonic() - began, 1), "before": before, "after": machine.state()}
        self._save(row)
        return True

    def _process(self, task: Task, deadline: float) -> tuple[Ended, str | None]:
        """A process of a task: how it ended, and the case that it was at."""
        spec = {**task.head, "done": self._done(task), "ceiling": self._ceiling()}
        child = self._start({**spec, "settings": self.settings.as_json()})
        open_case = None
        try:
            for row in child.each_row(deadline):
                if BEGUN in row:
                    open_case = row[BEGUN]
                else:
                    open_case = None
                    self._save({**task.head, **row, "at": now()})
        finally:
            child.close()
        if child.ended is None:
            raise RuntimeError("a process that did not end")
        return child.ended, open_case

    def _start(self, spec: dict[str, Any]) -> Child:
        if self.fork is None:
            return start_program(self.program, spec, self.log)

        def work(task: dict[str, Any]) -> None:
            self.results.close()  # the lock is the parent's alone
            if self.fork is not None:
                self.fork(task)

        return start_fork(work, spec, self.log)

    def _done(self, task: Task) -> list[str]:
        head = tuple(task.head.values())
        return [row["case"] for row in self.results.rows if key_of(row)[:3] == head]

    def _ceiling(self) -> dict[str, Any]:
        return next((row for row in self.results.rows if row["part"] == "ceiling" and row["case"] == "machine"), {})

    def _save(self, row: Row) -> None:
        if self.results.add(row):
            names = ("part", "engine", "model", "case", "status", "at", "before", "after", "log")
            figures = json.dumps({name: value for name, value in row.items() if name not in names}, default=str)
            head = " ".join(filter(None, (row["part"], row["engine"], row["model"], row["case"])))
            print(f"{head}: {row['status']} {figures[:_SHOWN]}", flush=True)

    def _tail(self, start: int) -> str:
        """What a task's process printed last."""
        with Path(self.log.name).open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")[-_TAIL:]


def known_parts() -> list[str]:
    return list(dict.fromkeys(part.name for part in PARTS))
