"""Keypoints of verified matches, moved until they show the same point, before the mapper sees them.

A unit of work is a few verified pairs; its result is a file in a folder beside the database, so that a killed job goes
on where it was. At the end all keypoints are written at once.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.graph import Graph
from sfm_match.colmap.growth import Earlier, restore_keypoints
from sfm_match.colmap.queries import (
    MOST_IMAGES,
    DamagedDatabase,
    matches_of,
    open_for_reading,
    read_record,
    write_records,
)
from sfm_match.errors import NothingDone
from sfm_match.images.collection import Collection
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.files import ImageError
from sfm_match.images.loader import decode_for
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.progress import MakeProgress
from sfm_match.refine.all_tracks import Moves, Parts, optimize_all
from sfm_match.refine.memory import pairs_at_once, photographs_kept
from sfm_match.refine.patch_alignment import ALGORITHM, Floats, Seen, align_photographs, see
from sfm_match.refine.track_optimization import Relations, join
from sfm_match.store.shard import ShardError, fingerprint, open_shard, write_shard

UNIT = 8  # pairs that a file holds, and more where there are very many: a kill costs no more than a second or so
_FILES, _MOST_OF_UNIT = 2000, 64
_AT_ONCE = 1 << 14  # images whose best pairs are looked for together
_BLOCK = 32  # images: pairs between two blocks follow one another
_MOST_KEPT = 3 * _BLOCK  # photographs in memory
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

    pairs: int  # whose patches were laid over one another
    keypoints: int  # moved
    median: float  # raw pixels that they were moved by
    unreadable: int  # images

    def line(self) -> str:
        number = self.unreadable
        lost = f" ({number:,} image{'s' * (number != 1)} could not be read again)" if number else ""
        return f"{self.keypoints:,} keypoints moved by {self.median:.2f} px in the median{lost}"


def adjusted_before(database: Path) -> Adjusted | None:
    """What was done in a database, or None. Raises DamagedDatabase."""
    note = read_record(database, _NOTE)
    try:
        return None if note is None else msgspec.json.decode(note, type=Adjusted)
    except msgspec.MsgspecError as error:
        raise DamagedDatabase(database, f"{_NOTE}: {error}") from error


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

    Raises:
        NothingDone: not one of the photographs that are needed can be read.
    """
    before = _NO_PAIRS if earlier is None else _aligned_before(database, earlier)
    with closing(sqlite3.connect(database)) as connection:
        source = _Source(connection)
        photographs = _Photographs(collection, size, reduced)
        units = list(units_of(connection, before))
        place.mkdir(exist_ok=True)
        told = _align_all(units, source, photographs, place, digest, progress)
        if photographs.unreadable and not photographs.read_any:
            raise NothingDone(
                f"{collection.folder}: not one photograph can be read again; keypoints are adjusted by them "
                "(--no-adjust-keypoints does not)"
            )
        moves = optimize_all(told, source.count, place, source.matched(before) if len(before) else None)
        source.move(moves, photographs, Adjusted(sum(map(len, units)), 0, 0.0, len(photographs.unreadable)))


def _aligned_before(database: Path, earlier: Earlier) -> NDArray[np.int64]:
    """(P,) pair_ids of the pairs that were taken over and aligned before; their keypoints are restored."""
    taken = restore_keypoints(database, earlier)
    if adjusted_before(earlier.path) is None:
        return taken[:0]
    with closing(open_for_reading(earlier.path)) as connection:
        aligned = np.concatenate([np.empty((0, 3), np.int64), *units_of(connection)])
    return np.intersect1d(taken, aligned[:, :2] @ (MOST_IMAGES, 1))


def _align_all(
    units: list[NDArray[np.int64]],
    source: "_Source",
    photographs: "_Photographs",
    place: Path,
    digest: str,
    make_progress: MakeProgress,
) -> Parts:
    """Aligns all units. What is given tells of each, in their order: a job that was killed comes to the same sums."""

    def path(number: int) -> Path:
        return place / f"{number:05d}.h5"

    def mark(number: int) -> str:
        return fingerprint([digest, units[number][:, :2].tolist(), ALGORITHM])

    done = [_read(path(number), mark(number)) is not None for number in range(len(units))]
    works = _works(units)
    progress = make_progress("adjust", sum(map(len, units)), "pairs", sum(works))
    for unit, work, is_done in zip(units, works, done, strict=True):
        if is_done:
            progress.advance(len(unit), work)
    cv2.setNumThreads(1)  # the threads are here
    workers = WorkerThreads(pairs_at_once(photographs.geometries))
    waiting = ((number, source.load(units[number][:, :2])) for number, is_done in enumerate(done) if not is_done)
    partly: dict[int, Relations] = {}  # not all of their photographs could be read
    try:
        with threadpool_limits(1, "blas"):
            for (number, pairs), (one, whole) in workers.each(waiting, lambda item: _align(item[1], photographs)):
                if whole:  # or another try may find what could not be read now
                    write_shard(path(number), vars(one), {"fingerprint": mark(number)})
                else:
                    partly[number] = one
                progress.advance(len(pairs), works[number])
    finally:
        progress.close()

    def told() -> Iterator[Relations]:
        for number in range(len(units)):
            yield partly[number] if number in partly else _stored(path(number))[1]

    return told


def clear(place: Path) -> None:
    """Removes what `adjust_keypoints` left on the way, and nothing else that may be there."""
    for path in place.glob("*.h5"):
        if _UNIT_FILE.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):  # it is not there, or somebody put something into it
        place.rmdir()


@dataclass(frozen=True)
class _Side:
    """An image's part in a pair."""

    name: str
    keypoints: NDArray[np.int64]  # (M,) places among the keypoints of all images
    points: Floats  # (M, 2) raw pixels


class _Source:
    """Keypoints and verified matches, by image and pair."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        query = "SELECT image_id, rows FROM keypoints WHERE rows > 0 ORDER BY image_id"
        self._images, counts = _columns(connection.execute(query))
        self._starts = np.concatenate(([0], counts.cumsum()))  # each image's part of the keypoints of all
        self.count = int(self._starts[-1])

    def name(self, image: int) -> str:
        """Of an image."""
        ((name,),) = self._connection.execute("SELECT name FROM images WHERE image_id = ?", (image,))
        return str(name)

    def _span(self, image: int) -> slice:
        place = int(np.searchsorted(self._images, image))
        return slice(int(self._starts[place]), int(self._starts[place + 1]))

    def load(self, pairs: NDArray[np.int64]) -> list[tuple[_Side, _Side]]:
        """Of (P, 2) images."""
        images = [int(image) for image in np.unique(pairs)]
        points, names = {one: self._keypoints(one) for one in images}, {one: self.name(one) for one in images}
        loaded = []
        for pair in pairs:
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (int(pair @ (MOST_IMAGES, 1)),))
            rows = matches_of(data).astype(np.int64)
            a, b = (
                _Side(names[image], self._span(image).start + rows[:, side], points[image][rows[:, side]])
                for side, image in enumerate(map(int, pair))
            )
            loaded.append((a, b))
        return loaded

    def matched(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(count,) keypoints that are inliers of some pairs, (P,) pair_ids."""
        found = np.zeros(self.count, bool)
        for number in pairs.tolist():
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (number,))
            rows = matches_of(data).astype(np.int64)
            for side, image in enumerate(divmod(number, MOST_IMAGES)):
                found[self._span(image).start + rows[:, side]] = True
        return found

    def _keypoints(self, image: int) -> Floats:
        ((data, columns),) = self._connection.execute("SELECT data, cols FROM keypoints WHERE image_id = ?", (image,))
        return np.frombuffer(data, np.float32).reshape(-1, columns)

    def move(self, moves: Moves, photographs: "_Photographs", done: Adjusted) -> None:
        """Adds what was found, pixels at the network's scale, to the keypoints and says so, all or none."""
        lengths = np.zeros(1, np.int64)  # how many keypoints moved by so many thousandths of a pixel
        with self._connection:
            for image in self._images.tolist():
                moved = moves.of(self._span(image)) / photographs.geometry(self.name(image)).raw_scale
                keypoints = self._keypoints(image).copy()
                keypoints[:, :2] += moved
                query = "UPDATE keypoints SET data = ? WHERE image_id = ?"
                self._connection.execute(query, (keypoints.tobytes(), image))
                far = np.linalg.norm(moved[moved.any(axis=1)], axis=1)
                mine = np.bincount((far * 1000).round().astype(np.int64), minlength=len(lengths))
                mine[: len(lengths)] += lengths
                lengths = mine
            adjusted = replace(done, keypoints=int(lengths.sum()), median=_median(lengths) / 1000)
            write_records(self._connection, {_NOTE: json.dumps(asdict(adjusted))})


def _median(counts: NDArray[np.int64]) -> float:
    """Of whole numbers, of each of which there are so many; 0 where there is none."""
    total, below = int(counts.sum()), counts.cumsum()
    return float(np.searchsorted(below, ((total - 1) // 2, total // 2), side="right").mean()) if total else 0.0


def _columns(rows: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """(2, R) of a query's numbers, without a Python object for each."""
    return np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 2).T


def _works(units: list[NDArray[np.int64]]) -> list[float]:
    """Of each unit, one after another: matches, and what reads a photograph for the first time."""
    read = set[int]()
    works: list[float] = []
    for unit in units:
        new = set(unit[:, :2].ravel().tolist()) - read
        read |= new
        works.append(float(unit[:, 2].sum()) + _PAIR_WORK * len(unit) + _PHOTOGRAPH_WORK * len(new))
    return works


def units_of(connection: sqlite3.Connection, without: NDArray[np.int64] = _NO_PAIRS) -> Iterator[NDArray[np.int64]]:
    """(P, 3) images and matches of the pairs to align: those among the `PARTNERS` best of one of their images.

    Pairs are left out by their pair_ids.

    They come block by block of images that are matched with one another, so that few photographs are needed at a time.
    """
    query = "SELECT pair_id, rows FROM two_view_geometries WHERE rows >= ?"
    numbers, matches = _columns(connection.execute(query, (_LEAST,)))
    best = _best_of_each(numbers, matches)
    numbers, matches = numbers[best], matches[best]
    wanted = ~np.isin(numbers, without)
    matches = matches[wanted]
    pairs = np.stack(np.divmod(numbers[wanted], MOST_IMAGES), axis=1)
    images, local = np.unique(pairs, return_inverse=True)
    edges = local.reshape(-1, 2)
    walked = Graph(len(images), edges).breadth_first_order()
    place = np.empty(len(images), np.int64)
    place[walked] = np.arange(len(images))
    blocks = np.sort(place[edges] // _BLOCK, axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], blocks[:, 1], blocks[:, 0]))
    size = min(max(UNIT, len(order) // _FILES), _MOST_OF_UNIT)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        yield np.column_stack((pairs[some], matches[some]))


def _best_of_each(numbers: NDArray[np.int64], matches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(K,) which pairs, by their pair_ids, are among the `PARTNERS` with most matches of one of their images."""
    kept = np.zeros(len(numbers), bool)
    low, high = (part.astype(np.int32) for part in np.divmod(numbers, MOST_IMAGES))
    for first in range(0, int(high.max(initial=-1)) + 1, _AT_ONCE):  # to sort all ends takes many times their memory
        mine = [np.flatnonzero((ends >= first) & (ends < first + _AT_ONCE)) for ends in (low, high)]
        pair = np.concatenate(mine)
        ends = np.concatenate((low[mine[0]], high[mine[1]]))
        order = np.lexsort((-matches[pair], ends))
        ends = ends[order]
        kept[pair[order[np.arange(len(ends)) - np.searchsorted(ends, ends) < PARTNERS]]] = True
    return kept


class _Photographs:
    """As the network saw them, but grey."""

    def __init__(self, collection: Collection, size: int, reduced: bool) -> None:
        self._folder, self._headers = collection.folder, collection.usable
        self._size, self._reduced = size, reduced
        self.unreadable: set[str] = set()
        self.read_any = False
        self.geometries = {one.geometry(size, 1) for one in self._headers.values()}  # mostly few
        self.read = lru_cache(photographs_kept(self.geometries, _MOST_KEPT))(self._read)

    def geometry(self, name: str) -> ImageGeometry:
        return self._headers[name].geometry(self._size, 1)

    def _read(self, name: str) -> Seen | None:
        """None where it cannot be read."""
        geometry = self.geometry(name)
        try:
            seen = see(decode_for(geometry, self._folder / name, reduce=self._reduced), geometry)
        except ImageError:
            self.unreadable.add(name)
            return None
        self.read_any = True
        return seen


def _align(pairs: list[tuple[_Side, _Side]], photographs: _Photographs) -> tuple[Relations, bool]:
    """What the patches of these pairs say, in pixels of the network; and whether all their photographs were read."""
    found, whole = [], True

    @lru_cache(2)  # pairs that follow one another mostly have an image in common
    def read(name: str) -> Seen | None:
        seen = photographs.read(name)
        return None if seen is None else seen.in_floats()

    for a, b in pairs:
        seen_a, seen_b = read(a.name), read(b.name)
        if seen_a is None or seen_b is None:
            whole = False
            continue
        aligned = align_photographs(seen_a, seen_b, a.points, b.points)
        fits = aligned.fits
        found.append(Relations(a.keypoints[fits], b.keypoints[fits], aligned.offsets[fits], aligned.affines[fits]))
    return join(found), whole


def _read(path: Path, expected: str) -> Relations | None:
    """What is there with this fingerprint, or None."""
    if not path.exists():
        return None
    try:
        mark, found = _stored(path)
    except ShardError:
        return None
    return found if mark == expected else None


def _stored(path: Path) -> tuple[str, Relations]:
    """Of a unit, and its fingerprint. Raises ShardError where the file is damaged."""
    with open_shard(path, "import") as file:
        return str(file.attrs["fingerprint"]), Relations(*(file[field.name][()] for field in fields(Relations)))
