"""Keypoints of verified matches, moved until they show the same point, before the mapper sees them.

A unit of work is a few verified pairs; its result is a file in a folder beside the database, so that a killed job goes
on where it was. At the end all keypoints are written at once.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairs.graph import Graph
from pairs.retrieval import first_of_each
from sfm_match.colmap.growth import Earlier, restore_keypoints
from sfm_match.colmap.queries import (
    MOST_IMAGES,
    columns,
    empty_log,
    open_for_reading,
    read_value,
    write_records,
)
from sfm_match.errors import NothingDone
from sfm_match.images.collection import Collection
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.executor import done_units
from sfm_match.job.progress import Clock, MakeProgress
from sfm_match.refine.align_units import BLOCK, AlignContext, AlignUnit, align_units, aligned, is_aligned
from sfm_match.refine.all_tracks import Moves, optimize_all
from sfm_match.refine.patch_alignment import ALGORITHM
from sfm_match.refine.track_optimization import Relations
from sfm_match.refine.verified_matches import Source
from sfm_match.store.columns import Computed, Made
from sfm_match.store.shard import fingerprint

if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool

UNIT = 8  # pairs that a file holds, and more where there are very many: a kill costs no more than a second or so
_FILES, _MOST_OF_UNIT = 2000, 64
_AT_ONCE = 1 << 13  # images whose best pairs are looked for together
_READ = 1 << 16  # pairs that are read together
PARTNERS = 6  # pairs of an image that are aligned, those with most matches: the time grows with the images
_LEAST = 15  # verified matches of a pair that is aligned
# work of a pair and of reading a photograph, in matches that are aligned (25 us each on one processor)
_PAIR_WORK, _PHOTOGRAPH_WORK = 200, 500
_NO_PAIRS = np.empty(0, np.int64)
_NOTE = "adjusted"  # in the database
_UNIT_FILE = re.compile(r"\d{5,}\.h5")


@dataclass(frozen=True)
class Adjusted:
    """What was done."""

    pairs: int  # whose patches were aligned
    keypoints: int  # moved
    median: float  # raw pixels that they were moved by
    unreadable: int  # images

    def line(self) -> str:
        number = self.unreadable
        lost = f" ({number:,} image{'s' * (number != 1)} could not be read again)" if number else ""
        return f"{self.keypoints:,} keypoints moved by {self.median:.2f} px in the median{lost}"


def adjusted_before(database: Path) -> Adjusted | None:
    """What was done in a database, or None. Raises DamagedDatabase."""
    return read_value(database, _NOTE, Adjusted)


def adjust_keypoints(
    database: Path,
    collection: Collection,
    place: Path,
    digest: str,
    *,
    size: int,
    reduced: bool,
    progress: MakeProgress,
    earlier: Earlier | None = None,
    pool: "RayPool | None" = None,
) -> None:
    """Moves the keypoints of the verified matches of a database, and notes in it what was done.

    Args:
        database: which no other process has open.
        collection: its images.
        place: folder for what is found on the way; it stays until `clear`.
        digest: of what the database was built from: files of another one are made anew.
        size: long side of an image at the network, pixels; patches are compared at that scale.
        reduced: decode large JPEGs at a fraction of their size, as for the network.
        progress: shows how far the pairs have come.
        earlier: that this one grew from: keypoints that were aligned there stay where it moved them.
        pool: of workers elsewhere, which read the database and the photographs.

    Raises:
        NothingDone: not one of the photographs that are needed can be read.
    """
    before = _NO_PAIRS if earlier is None else _aligned_before(database, earlier)
    if pool is not None:  # other machines do not see the log
        empty_log(database)
    context = AlignContext(database, pool is not None, collection.folder, collection.usable, size, reduced)
    with closing(sqlite3.connect(database)) as connection:
        source = Source(connection)
        place.mkdir(exist_ok=True)
        found = _align(_Units(pairs_to_align(connection, before), place, digest), context, progress, pool)
        if found.unreadable and not found.read_any:
            raise NothingDone(
                f"{collection.folder}: not one photograph can be read again; keypoints are adjusted by them "
                "(--no-adjust-keypoints does not)"
            )
        give_memory_back()  # of what aligned them
        moves = optimize_all(found.relations, source.count, place, source.matched(before) if len(before) else None)
        done = Adjusted(found.pairs, 0, 0.0, len(found.unreadable))
        _move(connection, source, moves, context, done)


def _aligned_before(database: Path, earlier: Earlier) -> NDArray[np.int64]:
    """(P,) pair_ids of the pairs that were taken over and aligned before; their keypoints are restored."""
    taken = restore_keypoints(database, earlier)
    if adjusted_before(earlier.path) is None:
        return taken[:0]
    with closing(open_for_reading(earlier.path)) as connection:
        aligned = pairs_to_align(connection)
    return np.intersect1d(taken, aligned[:, :2] @ (MOST_IMAGES, 1))


class _Units(Made[AlignUnit]):
    """All units, each made when it is needed: they take more memory than their pairs, (P, 3) as `pairs_to_align`'s."""

    def __init__(self, pairs: NDArray[np.int32], place: Path, digest: str) -> None:
        self.pairs, self.place, self._digest = pairs, place, digest
        self._size = min(max(UNIT, len(pairs) // _FILES), _MOST_OF_UNIT)

    def __len__(self) -> int:
        return -(-len(self.pairs) // self._size)

    def pairs_of(self, number: int) -> NDArray[np.int32]:
        """(U, 3) those of a unit."""
        return self.pairs[number * self._size : (number + 1) * self._size]

    def made(self, number: int) -> AlignUnit:
        pairs = self.pairs_of(number)
        return AlignUnit(number, pairs[:, :2], _path(self.place, number), _mark(self._digest, pairs))


@dataclass
class _Aligned:
    """What the units say, which lies in their files."""

    place: Path
    units: int
    pairs: int
    partly: dict[int, Relations] = field(default_factory=dict)  # of units not all of whose photographs could be read
    unreadable: frozenset[str] = frozenset()
    read_any: bool = False

    def relations(self) -> Iterator[Relations]:
        """In the order of the units: a job that was killed comes to the same sums. Raises ShardError."""
        for number in range(self.units):
            yield self.partly[number] if number in self.partly else aligned(_path(self.place, number))


def _align(units: _Units, context: AlignContext, make_progress: MakeProgress, pool: "RayPool | None") -> _Aligned:
    """Aligns the units that an earlier run left open."""
    found, numbers = _Aligned(units.place, len(units), len(units.pairs)), range(len(units))
    works = _works(map(units.pairs_of, numbers), int(units.pairs[:, 1].max(initial=0)))
    progress = make_progress("adjust", found.pairs, "pairs", sum(works))
    left: list[int] = []
    try:
        for number in numbers:
            if is_aligned(units[number]):
                progress.advance(len(units.pairs_of(number)), works[number])
            else:
                left.append(number)
        do, devices = partial(align_units, context), ["cpu"] if pool is None else pool.devices
        waiting = Computed(len(left), lambda place: units[left[place]])  # its length tells how many workers are needed
        for receipt in done_units(devices, do, waiting, units.place, lambda *_: None, Clock(), pool):
            if receipt.partly is not None:
                found.partly[receipt.number] = receipt.partly
            found.unreadable |= receipt.unreadable
            found.read_any |= receipt.read_any
            progress.advance(len(units.pairs_of(receipt.number)), works[receipt.number])
        return found
    finally:
        progress.close()


def _path(place: Path, number: int) -> Path:
    return place / f"{number:05d}.h5"


def _mark(digest: str, unit: NDArray[np.int32]) -> str:
    return fingerprint([digest, unit[:, :2].tolist(), ALGORITHM])


def clear(place: Path) -> None:
    """Removes what `adjust_keypoints` left on the way, and nothing else that may be there."""
    for path in place.glob("*.h5"):
        if _UNIT_FILE.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):  # it is not there, or somebody put something into it
        place.rmdir()


def _move(connection: sqlite3.Connection, source: Source, moves: Moves, context: AlignContext, done: Adjusted) -> None:
    """Adds what was found, pixels at the network's scale, to the keypoints and says so, all or none."""
    lengths = np.zeros(1, np.int64)  # how many keypoints moved by so many thousandths of a pixel
    with connection:
        for image in source.images.tolist():
            moved = moves.of(source.span(image)) / context.geometry(source.name(image)).raw_scale
            keypoints = source.keypoints(image).copy()
            keypoints[:, :2] += moved
            query = "UPDATE keypoints SET data = ? WHERE image_id = ?"
            connection.execute(query, (keypoints.tobytes(), image))
            far = np.linalg.norm(moved[moved.any(axis=1)], axis=1)
            mine = np.bincount((far * 1000).round().astype(np.int64), minlength=len(lengths))
            mine[: len(lengths)] += lengths
            lengths = mine
        adjusted = replace(done, keypoints=int(lengths.sum()), median=_median(lengths) / 1000)
        write_records(connection, {_NOTE: json.dumps(asdict(adjusted))})


def _median(counts: NDArray[np.int64]) -> float:
    """Of whole numbers, of each of which there are so many; 0 where there is none."""
    total, below = int(counts.sum()), counts.cumsum()
    return float(np.searchsorted(below, ((total - 1) // 2, total // 2), side="right").mean()) if total else 0.0


def _works(units: Iterable[NDArray[np.int32]], last: int) -> list[float]:
    """Of each unit, one after another: matches, and what reads a photograph for the first time; the last is `last`."""
    read = np.zeros(last + 1, bool)  # by image_id
    works: list[float] = []
    for unit in units:
        images = np.unique(unit[:, :2])
        new = len(images) - np.count_nonzero(read[images])
        read[images] = True
        works.append(float(unit[:, 2].sum()) + _PAIR_WORK * len(unit) + _PHOTOGRAPH_WORK * new)
    return works


def pairs_to_align(connection: sqlite3.Connection, without: NDArray[np.int64] = _NO_PAIRS) -> NDArray[np.int32]:
    """(P, 3) images and matches of the pairs to align: those among the `PARTNERS` best of one of their images.

    They come block by block of images that are matched with one another, so that few photographs are needed at a time.

    Args:
        connection: to the database.
        without: pair_ids of pairs that are left out.
    """
    query = "SELECT pair_id, rows FROM two_view_geometries WHERE rows >= ?"
    best = _best(connection.execute(query, (_LEAST,)))
    best = best[:, ~np.isin(best[0], without)]
    pairs = np.empty((best.shape[1], 3), np.int32)
    pairs[:, 0], pairs[:, 1], pairs[:, 2] = best[0] // MOST_IMAGES, best[0] % MOST_IMAGES, best[1]
    del best
    give_memory_back()  # of what chose them, before what sorts them
    there = np.zeros(1 + int(pairs[:, 1].max(initial=0)), bool)  # by image_id
    there[pairs[:, :2]] = True
    edges = (there.cumsum(dtype=np.int32) - 1)[pairs[:, :2]]
    walked = Graph(int(there.sum()), edges).breadth_first_order()
    place = np.empty(len(walked), np.int32)
    place[walked] = np.arange(len(walked))
    blocks = np.sort(place[edges] // BLOCK, axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], blocks[:, 1], blocks[:, 0]))]


def _best(rows: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """(2, K) pair_ids and matches of the pairs among the best of one of their images. Never all are in memory."""
    rows, best = iter(rows), np.empty((2, 0), np.int64)
    while (some := columns(islice(rows, max(_READ, best.shape[1] // 4)))).size:
        best = np.concatenate((best, some), axis=1)
        best = best[:, _best_of_each(*best)]
        give_memory_back()  # arrays that grow leave gaps that the next do not fit into
    return best


def _best_of_each(numbers: NDArray[np.int64], matches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(K,) which pairs, by their pair_ids, are among the `PARTNERS` with most matches of one of their images."""
    kept = np.zeros(len(numbers), bool)
    low, high = np.empty((2, len(numbers)), np.int32)
    np.floor_divide(numbers, MOST_IMAGES, out=low, casting="unsafe")  # no other array of millions
    np.remainder(numbers, MOST_IMAGES, out=high, casting="unsafe")
    for first in range(0, int(high.max(initial=-1)) + 1, _AT_ONCE):  # to sort all ends takes many times their memory
        mine = [np.flatnonzero((ends >= first) & (ends < first + _AT_ONCE)) for ends in (low, high)]
        pair = np.concatenate(mine)
        ends = np.concatenate((low[mine[0]], high[mine[1]]))
        kept[pair[first_of_each(ends, np.lexsort((-matches[pair], ends)), PARTNERS)]] = True
    return kept
