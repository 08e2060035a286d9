"""Pairs from a file: hloc's and COLMAP's `name name`, or names with spaces and a TAB between."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pairs import Block, PairsError
from pairs.named import about_unknown, read_lines, shown

_MOST_WORDS = 1000  # of a line: every way to split it is tried


def listed(match_list_path: Path, names: Sequence[str]) -> Iterator[Block]:
    """The pairs of a file, each once, whatever the order of its names.

    Empty lines are skipped, and lines that begin with # and hold no TAB. Without a TAB, a line is split at the one
    space that leaves two known names.

    Raises:
        PairsError: a line is no pair, an image is paired with itself, or names are unknown; one message names some of
            them and the nearest known ones.
    """
    path = match_list_path
    index = {name: i for i, name in enumerate(names)}
    seen: dict[tuple[int, int], None] = {}
    unknown: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or (line.startswith("#") and "\t" not in line):
            continue
        first, second = _split(line, index, f"{path}, line {number}")
        for name in (first, second):
            if name not in index:
                unknown.setdefault(name, number)
        if first in index and second in index:
            if first == second:
                raise PairsError(f"{path}, line {number}: {shown(first)} is paired with itself")
            i, j = index[first], index[second]
            seen[min(i, j), max(i, j)] = None
    if unknown:
        raise PairsError(f"{path}: {about_unknown(unknown, names)}")
    if seen:
        yield np.array(list(seen), dtype=np.int32)


def _split(line: str, index: dict[str, int], where: str) -> tuple[str, str]:
    if "\t" in line:
        parts = line.split("\t")
        if len(parts) == 2:
            return parts[0], parts[1]
        raise PairsError(f"{where}: expected two names with one TAB between, found {len(parts)} fields")
    words = line.strip().split(" ")
    if len(words) == 2:
        return words[0], words[1]
    known = []
    if len(words) <= _MOST_WORDS:
        ways = [(" ".join(words[:k]), " ".join(words[k:])) for k in range(1, len(words))]
        known = [way for way in ways if way[0] in index and way[1] in index]
    if len(known) == 1:
        return known[0]
    if len(words) < 2:
        raise PairsError(f"{where}: expected two names, found {shown(line.strip())}")
    reason = "can be split in several ways" if known else "does not split into two known names"
    raise PairsError(f"{where}: {shown(line.strip())} {reason}; put a TAB between the names")
