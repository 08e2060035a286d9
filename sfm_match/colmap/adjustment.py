"""Keypoints of verified matches, moved until they show the same point, before the mapper sees them.

A unit of work is a few verified pairs; its result is a file in a folder beside the database, so that a killed job goes
on where it was. At the end all keypoints are written at once, and the folder goes.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.alignment import Floats, Seen, align_photographs, see
from sfm_match.collection import Collection
from sfm_match.colmap.reading import MOST_IMAGES, read_note, write_notes
from sfm_match.images import ImageError, decode
from sfm_match.lanes import Lanes
from sfm_match.progress import Progress
from sfm_match.store.shard import ShardError, open_shard, write_shard
from sfm_match.tracks import Relations, agree, join

UNIT = 16  # pairs
_BLOCK = 32  # images: pairs between two blocks follow one another, so that few images are in memory
PARTNERS = 10  # pairs of an image that are aligned, those with most matches: the time grows with the images
_LEAST = 15  # verified matches of a pair that is aligned
_NOTE = "adjusted"  # in the database


@dataclass(frozen=True)
class Adjusted:
    """What was done."""

    pairs: int  # whose patches were laid over one another
    keypoints: int  # moved
    median: float  # raw pixels that they were moved by
    unreadable: int  # images

    def line(self) -> str:
        number = self.unreadable
        lost = f" ({number:,} image{'s' * (number != 1)} could not be read again)" if number else ""
        return f"{self.keypoints:,} keypoints moved by {self.median:.2f} px in the median{lost}"


def adjusted_before(database: Path) -> Adjusted | None:
    """What stands in a database."""
    note = read_note(database, _NOTE)
    return None if note is None else Adjusted(**json.loads(note))


def adjust_keypoints(
    database: Path, collection: Collection, place: Path, digest: str, *, size: int, reduced: bool, quiet: bool
) -> None:
    """Moves the keypoints of the verified matches of a database, and notes in it what was done.

    Args:
        database: which no other process has open.
        collection: its images.
        place: folder for what is found on the way.
        digest: of what the database was built from: files of another one are made anew.
        size: long side of an image at the network, pixels; patches are compared at that scale.
        reduced: decode large JPEGs at a fraction of their size, as for the network.
        quiet: no progress.
    """
    with closing(sqlite3.connect(database)) as connection:
        source = _Source(connection)
        greys = _Greys(collection, source.names, size, reduced)
        units = {place / f"{number:05d}.h5": pairs for number, pairs in enumerate(units_of(connection))}
        standing = {path: found for path in units if (found := _read(path, digest)) is not None}
        progress = Progress("adjust", sum(map(len, units.values())), "pairs", quiet=quiet)
        progress.advance(sum(len(units[path]) for path in standing))
        cv2.setNumThreads(1)  # the threads are here
        lanes = Lanes(os.cpu_count() or 1)
        waiting = ((path, source.load(pairs)) for path, pairs in units.items() if path not in standing)
        try:
            with threadpool_limits(1, "blas"):
                for (path, pairs), found in lanes.each(waiting, lambda item: _relations(item[1], greys)):
                    _write(path, found, digest)
                    standing[path] = found
                    progress.advance(len(pairs))
        finally:
            progress.close()
        # in the units' order, so that a job that was killed comes to the same sums
        moves = agree(join(standing[path] for path in units), source.count)
        far = np.linalg.norm(moves[moves.any(axis=1)], axis=1)
        median = round(float(np.median(far)), 3) if len(far) else 0.0
        adjusted = Adjusted(sum(map(len, units.values())), len(far), median, len(greys.unreadable))
        source.move(moves, adjusted)
    shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True)
class _Side:
    """An image's part in a pair."""

    image: int
    keypoints: NDArray[np.int64]  # (M,) places among the keypoints of all images
    points: Floats  # (M, 2) raw pixels


class _Source:
    """Keypoints and verified matches, by image and pair."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.names: dict[int, str] = dict(connection.execute("SELECT image_id, name FROM images"))
        self._starts: dict[int, int] = {}
        self.count = 0  # keypoints of all images
        for image, rows in connection.execute("SELECT image_id, rows FROM keypoints ORDER BY image_id").fetchall():
            self._starts[image] = self.count
            self.count += rows

    def load(self, pairs: NDArray[np.int64]) -> list[tuple[_Side, _Side]]:
        """Of (P, 2) images."""
        points = {int(image): self._keypoints(int(image)) for image in np.unique(pairs)}
        loaded = []
        for pair in pairs:
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (int(pair @ (MOST_IMAGES, 1)),))
            rows = np.frombuffer(data, np.uint32).reshape(-1, 2).astype(np.int64)
            a, b = (
                _Side(image, self._starts[image] + rows[:, side], points[image][rows[:, side]])
                for side, image in enumerate(map(int, pair))
            )
            loaded.append((a, b))
        return loaded

    def _keypoints(self, image: int) -> Floats:
        ((data, columns),) = self._connection.execute("SELECT data, cols FROM keypoints WHERE image_id = ?", (image,))
        return np.frombuffer(data, np.float32).reshape(-1, columns)

    def move(self, moves: Floats, adjusted: Adjusted) -> None:
        """Adds (count, 2) raw pixels to the keypoints and says so, all or none."""
        with self._connection:
            write_notes(self._connection, {_NOTE: json.dumps(asdict(adjusted))})
            for image, start in self._starts.items():
                keypoints = self._keypoints(image).copy()
                keypoints[:, :2] += moves[start : start + len(keypoints)]
                query = "UPDATE keypoints SET data = ? WHERE image_id = ?"
                self._connection.execute(query, (keypoints.tobytes(), image))


def units_of(connection: sqlite3.Connection) -> Iterator[NDArray[np.int64]]:
    """(P, 2) images of the pairs to align: those that are among the `PARTNERS` best of one of their images."""
    query = "SELECT pair_id, rows FROM two_view_geometries WHERE rows >= ?"
    found = np.array(connection.execute(query, (_LEAST,)).fetchall(), np.int64).reshape(-1, 2)
    pairs = np.stack(np.divmod(found[:, 0], MOST_IMAGES), axis=1)
    ends, rows = pairs.T.ravel(), np.tile(found[:, 1], 2)
    order = np.lexsort((-rows, ends))
    rank = np.arange(len(ends)) - np.searchsorted(ends[order], ends[order])  # among the pairs of the image
    kept = np.zeros(len(pairs), bool)
    kept[order[rank < PARTNERS] % max(len(pairs), 1)] = True
    tiles = pairs // _BLOCK
    order = np.lexsort((pairs[:, 1], pairs[:, 0], tiles[:, 1], tiles[:, 0]))
    order = order[kept[order]]
    for start in range(0, len(order), UNIT):
        yield pairs[order[start : start + UNIT]]


class _Greys:
    """The photographs, as the network saw them but grey."""

    def __init__(self, collection: Collection, names: dict[int, str], size: int, reduced: bool) -> None:
        self._folder, self._headers, self._names = collection.folder, collection.usable, names
        self._size, self._reduced = size, reduced
        self.unreadable: set[int] = set()
        self.read = lru_cache(3 * _BLOCK)(self._read)

    def _read(self, image: int) -> Seen | None:
        """None where it cannot be read."""
        name = self._names[image]
        frame = self._headers[name].frame(self._size, 1)
        try:
            return see(decode(self._folder / name, frame.raw_network_size if self._reduced else None), frame)
        except ImageError:
            self.unreadable.add(image)
            return None


def _relations(pairs: list[tuple[_Side, _Side]], greys: _Greys) -> Relations:
    """What the patches of these pairs say, in raw pixels."""
    found = []
    for a, b in pairs:
        seen_a, seen_b = greys.read(a.image), greys.read(b.image)
        if seen_a is None or seen_b is None:
            continue
        aligned = align_photographs(seen_a, seen_b, a.points, b.points)
        fits = aligned.fits
        found.append(Relations(a.keypoints[fits], b.keypoints[fits], aligned.offsets[fits], aligned.affines[fits]))
    return join(found)


def _write(path: Path, found: Relations, digest: str) -> None:
    write_shard(path, vars(found), {"fingerprint": digest})


def _read(path: Path, digest: str) -> Relations | None:
    """What stands of this digest."""
    if not path.exists():
        return None
    try:
        with open_shard(path) as file:
            if file.attrs["fingerprint"] != digest:
                return None
            return Relations(*(file[field.name][()] for field in fields(Relations)))
    except ShardError:
        return None
