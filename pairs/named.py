"""Images chosen by a list of names or by how their names begin, as in hloc."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs import PairsError

_SHOWN = 3  # unknown names in a message
_LONGEST = 10_000  # characters of a line: two names of 4,096 bytes, and more
_MOST_WORDS = 1000  # of a name
_LONGEST_NEAR = 255  # characters of a name of which the nearest is looked for
_shorten = reprlib.Repr()
_shorten.maxstring = 80


def chosen(names: Sequence[str], prefix: str | None, path: Path | None) -> NDArray[np.int32]:
    """Indices, ascending, of the names that begin with `prefix` and are in the file; all of them without either.

    A line of the file is a name, or what hloc's lists of images hold: a name, then a space or a TAB and anything.
    Empty lines are skipped, and lines that begin with # and are no name.

    Raises:
        PairsError: no name is chosen, or the file names unknown images.
    """
    wanted = list(range(len(names)))
    if path is not None:
        wanted = _of_file(path, names)
    if prefix is not None:
        wanted = [i for i in wanted if names[i].startswith(prefix)]
    if not wanted:
        conditions = [f"begins with {shown(prefix)}" if prefix else "", f"is in {path}" if path else ""]
        raise PairsError(f"no image's name {' and '.join(filter(None, conditions))}")
    return np.array(wanted, np.int32)


def _of_file(path: Path, names: Sequence[str]) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    wanted, unknown = set(), dict[str, int]()
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        words = line.split()
        most = min(len(words), _MOST_WORDS)
        ways = (line, line.strip(), line.split("\t")[0], *(" ".join(words[:k]) for k in range(most, 0, -1)))
        name = next((way for way in ways if way in index), None)
        if name is not None:
            wanted.add(index[name])
        elif not line.startswith("#"):
            unknown.setdefault(line.strip(), number)
    if unknown:
        raise PairsError(f"{path}: {about_unknown(unknown, names)}")
    return sorted(wanted)


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, without their ends.

    Raises:
        PairsError: it cannot be read, is not UTF-8, or has a line that is longer than names are.
    """
    try:
        lines = [line.removesuffix("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise PairsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise PairsError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST or "\0" in line:
            what = "a zero byte" if "\0" in line else f"more than {_LONGEST:,} characters"
            raise PairsError(f"{path}, line {number}: {what}; must be a text file of names")
    return lines


def shown(name: str) -> str:
    """A name for a message, in quotes: control characters escaped, at most 80 characters."""
    return _shorten.repr(name)


def about_unknown(unknown: Mapping[str, int], names: Sequence[str]) -> str:
    """A few unknown names, with their lines and the nearest known ones."""

    def describe(name: str) -> str:
        near = len(name) <= _LONGEST_NEAR
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6) if near else []
        return f"{shown(name)} (line {unknown[name]}" + (f"; nearest is '{close[0]}')" if close else ")")

    described = ", ".join(describe(name) for name in list(unknown)[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return f"{len(unknown)} names are not in the collection: {described}{more}"
