"""The results: a file of JSON lines, each durable before the next begins.

A row is known by its part, engine, model and case, and stands once. A line that a kill left half written is cut off
when the file is opened again. One process writes; a second one is refused.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KEY = ("part", "engine", "model", "case")
END = "end"  # the case that closes a task

Row = dict[str, Any]


class ResultsError(Exception):
    """The file cannot be gone on with; the message says why and what to do."""


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a row from the others."""
    return tuple(str(row.get(name, "")) for name in KEY)


def whole_lines(content: bytes) -> Iterator[tuple[int, Row]]:
    """The rows of a file, each with the place where its line ends, bytes; what a kill left at the end is left out.

    Raises:
        ResultsError: a line that is not the last is no row.
    """
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        line = content[start : end + 1]
        try:
            row = json.loads(line)
        except ValueError as error:
            if content.find(b"\n", end + 1) < 0:  # a file system may keep the length and lose the content
                return
            raise ResultsError(f"a line at byte {start} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ResultsError(f"a line at byte {start} is not a row")
        yield end + 1, row
        start = end + 1


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a file, without opening it for writing."""
    return [row for _, row in whole_lines(path.read_bytes())]


class Results:
    """The file of a run, open for more."""

    def __init__(self, path: Path) -> None:
        """Raises ResultsError where another process writes the file, or its content is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ResultsError(f"{path}: another gpu_check writes it; wait for it, or give another --out") from error
        self._file.seek(0)
        content = self._file.read()
        self.rows: list[Row] = []
        whole = 0
        try:
            for end, row in whole_lines(content):
                self.rows.append(row)
                whole = end
        except ResultsError as error:
            self._file.close()
            raise ResultsError(f"{path}: {error}; give another --out") from error
        if whole < len(content):
            self._file.truncate(whole)
        self._keys = {key_of(row) for row in self.rows}

    def __contains__(self, key: tuple[str, ...]) -> bool:
        return key in self._keys

    def add(self, row: Row) -> bool:
        """Appends a row, durably. False where one of its key stands already, which is kept."""
        if key_of(row) in self._keys:
            return False
        self._file.write(json.dumps(row, separators=(",", ":"), default=str).encode() + b"\n")
        os.fsync(self._file.fileno())
        self.rows.append(row)
        self._keys.add(key_of(row))
        return True

    def close(self) -> None:
        self._file.close()
