"""Keypoints of verified matches, moved until they show the same point, before the mapper sees them.

A unit of work is a few verified pairs; its result is a file in a folder beside the database, so that a killed job goes
on where it was. Units are done here, or by workers of a cluster. At the end all keypoints are written at once.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.graph import Graph
from pairs.prune import among_first
from sfm_match.colmap.growth import Earlier, restore_keypoints
from sfm_match.colmap.queries import (
    MOST_IMAGES,
    DamagedDatabase,
    empty_log,
    matches_of,
    open_for_reading,
    read_record,
    write_records,
)
from sfm_match.errors import NothingDone
from sfm_match.images.collection import Collection
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.files import Header, ImageError
from sfm_match.images.loader import decode_for
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.executor import done_units
from sfm_match.job.progress import Advance, Clock, MakeProgress
from sfm_match.refine.memory import pairs_at_once, photographs_kept
from sfm_match.refine.patch_alignment import ALGORITHM, Floats, Seen, align_photographs, see
from sfm_match.refine.track_optimization import Relations, join, optimize_tracks
from sfm_match.store.shard import ShardError, fingerprint, open_shard, write_shard

if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool

UNIT = 8  # pairs
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
        source = _Source(connection)
        units = list(units_of(connection, before))
        aligned = _Aligned(units, source.works(units), place, digest)
        aligned.do(context, progress, pool)
        relations = join(aligned.relations())
        if aligned.unreadable and not aligned.read_any:
            raise NothingDone(
                f"{collection.folder}: not one photograph can be read again; keypoints are adjusted by them "
                "(--no-adjust-keypoints does not)"
            )
        moves = optimize_tracks(relations, source.count, source.matched(before))
        for image, span in source.spans.items():
            moves[span] /= context.geometry(source.names[image]).raw_scale
        far = np.linalg.norm(moves[moves.any(axis=1)], axis=1)
        median = round(float(np.median(far)), 3) if len(far) else 0.0
        source.move(moves, Adjusted(sum(map(len, units)), len(far), median, len(aligned.unreadable)))


def _aligned_before(database: Path, earlier: Earlier) -> NDArray[np.int64]:
    """(P,) pair_ids of the pairs that were taken over and aligned before; their keypoints are restored."""
    taken = restore_keypoints(database, earlier)
    if adjusted_before(earlier.path) is None:
        return taken[:0]
    with closing(open_for_reading(earlier.path)) as connection:
        aligned = np.concatenate([np.empty((0, 2), np.int64), *units_of(connection)])
    return np.intersect1d(taken, aligned @ (MOST_IMAGES, 1))


@dataclass(frozen=True)
class AlignContext:
    """What whoever aligns units needs to know."""

    database: Path  # nobody writes to it meanwhile
    elsewhere: bool  # on machines that share the folder
    folder: Path  # of photographs
    headers: Mapping[str, Header]  # of the collection
    size: int
    reduced: bool

    def geometry(self, name: str) -> ImageGeometry:
        """Of an image at the network."""
        return self.headers[name].geometry(self.size, 1)


@dataclass(frozen=True)
class AlignUnit:
    """Pairs that are aligned together."""

    number: int
    pairs: NDArray[np.int64]  # (P, 2) images
    path: Path  # of the file with what is found
    fingerprint: str


@dataclass(frozen=True)
class AlignReceipt:
    """What was found."""

    number: int
    relations: Relations
    unreadable: frozenset[int]  # images, so far
    read_any: bool  # of the photographs, so far


def align_units(
    context: AlignContext, _device: str, units: Iterator[AlignUnit], _advance: Advance, _clock: Clock
) -> Iterator[AlignReceipt]:
    """The work of one worker (`executor.Work`)."""
    cv2.setNumThreads(1)  # the threads are here
    with closing(open_for_reading(context.database, still=context.elsewhere)) as connection:
        source = _Source(connection)
        photographs = _Photographs(context, source.names)
        workers = WorkerThreads(pairs_at_once(photographs.geometries))
        waiting = ((unit, source.load(unit.pairs)) for unit in units)
        with threadpool_limits(1, "blas"):
            for (unit, _), (one, whole) in workers.each(waiting, lambda item: _align(item[1], photographs)):
                if whole:  # or another try may find what could not be read now
                    write_shard(unit.path, vars(one), {"fingerprint": unit.fingerprint})
                yield AlignReceipt(unit.number, one, frozenset(photographs.unreadable), photographs.read_any)


class _Aligned:
    """What the units say: those that an earlier run did, and those that are done now."""

    def __init__(self, units: list[NDArray[np.int64]], works: list[float], place: Path, digest: str) -> None:
        self._works, self._place = works, place
        self._units = [
            AlignUnit(number, pairs, place / f"{number:05d}.h5", fingerprint([digest, pairs.tolist(), ALGORITHM]))
            for number, pairs in enumerate(units)
        ]
        self._found = {unit.number: found for unit in self._units if (found := _read(unit)) is not None}
        self.unreadable = frozenset[int]()
        self.read_any = False

    def relations(self) -> Iterator[Relations]:
        """In the order of the units: a job that was killed comes to the same sums."""
        return (self._found[unit.number] for unit in self._units)

    def do(self, context: AlignContext, make_progress: MakeProgress, pool: "RayPool | None") -> None:
        """Aligns the units that are open."""
        left = [unit for unit in self._units if unit.number not in self._found]
        progress = make_progress("adjust", sum(len(unit.pairs) for unit in self._units), "pairs", sum(self._works))
        try:
            for number in self._found:
                progress.advance(len(self._units[number].pairs), self._works[number])
            work, devices = partial(align_units, context), ["cpu"] if pool is None else pool.devices
            for receipt in done_units(devices, work, left, self._place, lambda *_: None, Clock(), pool):
                self._found[receipt.number] = receipt.relations
                self.unreadable |= receipt.unreadable
                self.read_any |= receipt.read_any
                progress.advance(len(self._units[receipt.number].pairs), self._works[receipt.number])
        finally:
            progress.close()


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

    image: int
    keypoints: NDArray[np.int64]  # (M,) places among the keypoints of all images
    points: Floats  # (M, 2) raw pixels


class _Source:
    """Keypoints and verified matches, by image and pair."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.names: dict[int, str] = dict(connection.execute("SELECT image_id, name FROM images"))
        self.spans: dict[int, slice] = {}  # each image's part of the keypoints of all
        self.count = 0
        query = "SELECT image_id, rows FROM keypoints WHERE rows > 0 ORDER BY image_id"
        for image, rows in connection.execute(query).fetchall():
            self.spans[image] = slice(self.count, self.count + rows)
            self.count += rows

    def load(self, pairs: NDArray[np.int64]) -> list[tuple[_Side, _Side]]:
        """Of (P, 2) images."""
        points = {int(image): self._keypoints(int(image)) for image in np.unique(pairs)}
        loaded = []
        for pair in pairs:
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (int(pair @ (MOST_IMAGES, 1)),))
            rows = matches_of(data).astype(np.int64)
            a, b = (
                _Side(image, self.spans[image].start + rows[:, side], points[image][rows[:, side]])
                for side, image in enumerate(map(int, pair))
            )
            loaded.append((a, b))
        return loaded

    def works(self, units: list[NDArray[np.int64]]) -> list[float]:
        """Of each unit (P, 2), one after another: matches, and what reads a photograph for the first time."""
        rows = dict(self._connection.execute("SELECT pair_id, rows FROM two_view_geometries").fetchall())
        read = set[int]()
        works: list[float] = []
        for pairs in units:
            new = set(pairs.ravel().tolist()) - read
            read |= new
            matches = sum(rows[number] for number in (pairs @ (MOST_IMAGES, 1)).tolist())
            works.append(matches + _PAIR_WORK * len(pairs) + _PHOTOGRAPH_WORK * len(new))
        return works

    def matched(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(count,) keypoints that are inliers of some pairs, (P,) pair_ids."""
        found = np.zeros(self.count, bool)
        for number in pairs.tolist():
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (number,))
            rows = matches_of(data).astype(np.int64)
            for side, image in enumerate(divmod(number, MOST_IMAGES)):
                found[self.spans[image].start + rows[:, side]] = True
        return found

    def _keypoints(self, image: int) -> Floats:
        ((data, columns),) = self._connection.execute("SELECT data, cols FROM keypoints WHERE image_id = ?", (image,))
        return np.frombuffer(data, np.float32).reshape(-1, columns)

    def move(self, moves: Floats, adjusted: Adjusted) -> None:
        """Adds (count, 2) raw pixels to the keypoints and says so, all or none."""
        with self._connection:
            write_records(self._connection, {_NOTE: json.dumps(asdict(adjusted))})
            for image, span in self.spans.items():
                keypoints = self._keypoints(image).copy()
                keypoints[:, :2] += moves[span]
                query = "UPDATE keypoints SET data = ? WHERE image_id = ?"
                self._connection.execute(query, (keypoints.tobytes(), image))


def units_of(connection: sqlite3.Connection, without: NDArray[np.int64] = _NO_PAIRS) -> Iterator[NDArray[np.int64]]:
    """(P, 2) images of the pairs to align: those that are among the `PARTNERS` best of one of their images.

    Pairs are left out by their pair_ids.

    They come block by block of images that are matched with one another, so that few photographs are needed at a time.
    """
    query = "SELECT pair_id, rows FROM two_view_geometries WHERE rows >= ?"
    found = np.array(connection.execute(query, (_LEAST,)).fetchall(), np.int64).reshape(-1, 2)
    pairs = np.stack(np.divmod(found[:, 0], MOST_IMAGES), axis=1)
    ends = pairs.T.ravel()
    pairs = pairs[among_first(ends, np.lexsort((-np.tile(found[:, 1], 2), ends)), PARTNERS)]
    pairs = pairs[~np.isin(pairs @ (MOST_IMAGES, 1), without)]
    images, local = np.unique(pairs, return_inverse=True)
    edges = local.reshape(-1, 2)
    walked = Graph(len(images), edges).breadth_first_order()
    place = np.empty(len(images), np.int64)
    place[walked] = np.arange(len(images))
    blocks = np.sort(place[edges] // _BLOCK, axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], blocks[:, 1], blocks[:, 0]))
    for start in range(0, len(order), UNIT):
        yield pairs[order[start : start + UNIT]]


class _Photographs:
    """As the network saw them, but grey."""

    def __init__(self, context: AlignContext, names: Mapping[int, str]) -> None:
        self._context, self._names = context, names
        self.unreadable: set[int] = set()
        self.read_any = False
        self.geometries = [context.geometry(name) for name in names.values()]
        self.read = lru_cache(photographs_kept(self.geometries, _MOST_KEPT))(self._read)

    def _read(self, image: int) -> Seen | None:
        """None where it cannot be read."""
        name, context = self._names[image], self._context
        geometry = context.geometry(name)
        try:
            seen = see(decode_for(geometry, context.folder / name, reduce=context.reduced), geometry)
        except ImageError:
            self.unreadable.add(image)
            return None
        self.read_any = True
        return seen


def _align(pairs: list[tuple[_Side, _Side]], photographs: _Photographs) -> tuple[Relations, bool]:
    """What the patches of these pairs say, in pixels of the network; and whether all their photographs were read."""
    found, whole = [], True

    @lru_cache(2)  # pairs that follow one another mostly have an image in common
    def read(image: int) -> Seen | None:
        seen = photographs.read(image)
        return None if seen is None else seen.in_floats()

    for a, b in pairs:
        seen_a, seen_b = read(a.image), read(b.image)
        if seen_a is None or seen_b is None:
            whole = False
            continue
        aligned = align_photographs(seen_a, seen_b, a.points, b.points)
        fits = aligned.fits
        found.append(Relations(a.keypoints[fits], b.keypoints[fits], aligned.offsets[fits], aligned.affines[fits]))
    return join(found), whole


def _read(unit: AlignUnit) -> Relations | None:
    """What an earlier run found, or None."""
    if not unit.path.exists():
        return None
    try:
        with open_shard(unit.path, "import") as file:
            if file.attrs["fingerprint"] != unit.fingerprint:
                return None
            return Relations(*(file[field.name][()] for field in fields(Relations)))
    except ShardError:
        return None
