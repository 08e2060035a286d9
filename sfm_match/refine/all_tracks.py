"""Tracks of a whole collection brought to agree, a part of them in memory at a time.

What aligned pairs say grows with the images: of 100,000 it is some gigabytes. It stays in the files of the units, is
dealt out by tracks to files of some hundred thousand relations each. The number of each keypoint's track and the moves
are in files, too.
"""

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sfm_match.job.concurrency import give_memory_back
from sfm_match.refine.track_optimization import Floats, Keypoints, Relations, optimize_tracks

Parts = Callable[[], Iterable[Relations]]
_AT_ONCE = 1 << 17  # relations: with what is made of them, some 30 MB
_MOST_FILES = 200  # that are open at a time
_STEP = 1 << 10  # keypoints: tracks are dealt out by their first one
_MOVE = 8  # bytes
_WRITTEN = 1 << 18  # numbers that are in memory at a time
_STORED = np.dtype([("first", "<i8"), ("second", "<i8"), ("offsets", "<f4", 2), ("affines", "<f4", (2, 2))])


class Numbers:
    """0 to count - 1, to be changed: in a nameless file that is mapped to memory, or in memory where none can be.

    Args:
        count: of them.
        folder: of the file.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, count: int, folder: Path) -> None:
        dtype = np.dtype(np.int32 if count < 1 << 31 else np.int64)
        self._map: mmap.mmap | None = None
        with tempfile.TemporaryFile(dir=folder) as file:
            # written, so that the disk has room: of a mapped page without, the system ends the process (file systems
            # that never overwrite, as btrfs, may find none later, too; the job resumes)
            for start in range(0, count, _WRITTEN):
                file.write(np.arange(start, min(start + _WRITTEN, count), dtype=dtype).tobytes())
            file.flush()
            with suppress(OSError, ValueError):  # some network file systems map none, and none maps no bytes
                self._map = mmap.mmap(file.fileno(), 0)
        self.array: Keypoints = np.arange(count, dtype=dtype) if self._map is None else np.frombuffer(self._map, dtype)

    def let_go(self) -> None:
        """What was read and written leaves the memory of this process; it stays in the file."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Moves:
    """(count, 2) pixels, in a nameless file."""

    def __init__(self, count: int, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is open as long as this is
        self._file.truncate(count * _MOVE)

    def set(self, keypoints: Keypoints, moves: Floats) -> None:
        """Of (K,) keypoints, ascending. Raises OSError where the disk is full."""
        apart = np.flatnonzero(np.diff(keypoints) != 1) + 1
        for start, stop in pairwise((0, *apart.tolist(), len(keypoints))):  # runs of keypoints
            if start < stop:
                self._file.seek(int(keypoints[start]) * _MOVE)
                self._file.write(np.ascontiguousarray(moves[start:stop], np.float32).tobytes())

    def of(self, span: slice) -> Floats:
        """(K, 2) of the keypoints of a slice."""
        found = np.empty((span.stop - span.start, 2), np.float32)
        self._file.seek(span.start * _MOVE)
        self._file.readinto(found.data)
        return found


def optimize_all(parts: Parts, count: int, folder: Path, held: NDArray[np.bool_] | None = None) -> Moves:
    """Moves of `count` keypoints that fit what pairs say of them best.

    Args:
        parts: gives all relations, some at a time, as often as it is called, and always the same.
        count: of keypoints.
        folder: for files without a name.
        held: (count,) keypoints that stay.
    """
    moves, tracks = Moves(count, folder), Numbers(count, folder)
    joined_tracks(parts(), tracks)
    with ExitStack() as files:
        dealt = _dealt(parts, tracks, lambda: files.enter_context(tempfile.TemporaryFile(dir=folder)))
        for file in dealt:
            moves.set(*optimize_tracks(_read(file), tracks.array, held))
            tracks.let_go()
            give_memory_back()  # or the next arrays come beside what is left between these
    return moves


def joined_tracks(parts: Iterable[Relations], tracks: Numbers) -> Keypoints:
    """(count,) the least keypoint that each is connected with, in place of the numbers of the keypoints."""
    least, count = tracks.array, len(tracks.array)
    for part in parts:
        first, second = part.first, part.second
        while len(first):
            first, second = _root(least, first), _root(least, second)
            apart = first != second
            first, second = first[apart], second[apart]
            np.minimum.at(least, np.maximum(first, second), np.minimum(first, second))
        tracks.let_go()
    for start in range(0, count, _STEP):  # what a keypoint points to comes before it, and is settled
        some = slice(start, start + _STEP)
        least[some] = _root(least, least[some])
        if start % _WRITTEN == 0:
            tracks.let_go()
    return least


def _root(least: Keypoints, keypoints: Keypoints) -> Keypoints:
    """The first keypoint of the track of each."""
    while True:
        further = least[keypoints]
        if (further == keypoints).all():
            return further
        keypoints = further


def _dealt(parts: Parts, tracks: Numbers, new_file: Callable[[], IO[bytes]]) -> list[IO[bytes]]:
    """Files of relations: tracks are whole, and there are `_AT_ONCE` relations in each, or as many as one step has."""
    track = tracks.array
    steps = np.zeros(-(-len(track) // _STEP), np.int64)
    for part in parts():
        np.add.at(steps, track[part.first] // _STEP, 1)
        tracks.let_go()
    most = max(_AT_ONCE, int(steps.sum()) // _MOST_FILES)
    file_of_step, held = np.zeros(len(steps), np.int64), 0
    number = 0
    for step, relations in enumerate(steps.tolist()):
        if held and held + relations > most:
            number, held = number + 1, 0
        held += relations
        file_of_step[step] = number
    files = [new_file() for _ in range(number + 1)]
    for part in parts():
        for number, some in _split(part, file_of_step[track[part.first] // _STEP]):
            files[number].write(some.tobytes())
        tracks.let_go()
    return files


def _split(part: Relations, number: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.void]]]:
    """Relations by the number of their file, in their order."""
    stored = np.empty(len(number), _STORED)
    for name, values in vars(part).items():
        stored[name] = values
    for one in np.unique(number).tolist():
        yield one, stored[number == one]


def _read(file: IO[bytes]) -> Relations:
    """Views of what it holds, so that this is in memory once."""
    file.seek(0)
    stored = np.frombuffer(file.read(), _STORED)
    return Relations(*(stored[name] for name in _STORED.fields or ()))
