"""Which pairs of a database are accepted, and their two-view geometries, in one pass over the matches.

The first look (`matching.acceptance`) sees the matches alone: a pair that it rejects costs no geometry. Of the others
a geometry is estimated, and judged by what chance would give. The database then holds the matches of accepted pairs,
whole; those of all pairs are in `matches/`, and what was seen of each pair in the table `sfm_match_pairs`.
"""

import math
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.colmap.cameras import read_cameras
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS, open_for_reading, read_record, write_records
from sfm_match.colmap.two_view import Configuration, TwoView, estimate_two_view, rays, transferred
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.cores import cores
from sfm_match.job.progress import Advance
from sfm_match.matching.acceptance import (
    LEAST_STRONG,
    SIGNIFICANT,
    FirstLook,
    Floats,
    Points,
    Verdict,
    count_strong,
    first_look,
    line_chance,
    point_chance,
    significance,
)
from sfm_match.store.columns import Column, Made, Names
from sfm_match.store.matches import Matches

if TYPE_CHECKING:
    import pycolmap

_DONE = "pairs verified"  # a record in the database
_COLUMNS = (
    "pair_id INTEGER PRIMARY KEY, matches INTEGER, strong INTEGER, arrangement REAL, significance REAL, verdict TEXT"
)
_IMAGES = 192  # whose keypoints are held; tiles bring pairs of at most 64 images together
_AT_ONCE = 256  # pairs that are written together; a kill costs no more

# what `_work` tells, fitted to the pairs of eight scenes
_ARRANGED_SHARE = 0.2  # of the pairs with too few strong matches whose geometry is estimated all the same
_GEOMETRY_WORK, _MATCH_WORK = 7.0, 0.012
_SAMPLES_WORK, _ESSENTIAL_WORK, _FEW_STRONG = 50.0, 230.0, 13.0

NamedMatches = tuple[str, str, Matches]
Scores = NDArray[np.floating]
ImageRow = tuple[int, int, int, int]  # image_id, camera_id, width and height in raw pixels
ReadKeypoints = Callable[[str], NDArray[np.floating]]  # of an image: (N, 2 or more), x and y first, raw pixels


@dataclass(frozen=True)
class How:
    """How pairs are judged."""

    verify: bool = True  # or take all matches as they are, without geometries
    accept_all: bool = False  # every pair with enough inliers, as COLMAP does
    rotations: int = 1  # quarter turns that one image of a pair may have against the other: 1 or 4


class _Rows(Made[ImageRow]):
    """Rows of images, without an object for each."""

    def __init__(self, numbers: "array[int]") -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers) // 4

    def made(self, place: int) -> ImageRow:
        image, camera, width, height = self._numbers[4 * place : 4 * place + 4]
        return image, camera, width, height


@dataclass(frozen=True)
class Judging:
    """What whoever judges pairs of a database needs to know, here or elsewhere."""

    images: Mapping[str, ImageRow]
    cameras: Mapping[int, "pycolmap.Camera"]
    how: How

    def number(self, first: str, second: str) -> int:
        """COLMAP's pair_id of two names."""
        low, high = sorted((self.images[first][0], self.images[second][0]))
        return int(low * MOST_IMAGES + high)

    def work(self, first: str, second: str, scores: Scores) -> float:
        """Of a pair, as far as the scores of its matches tell beforehand."""
        return _work(scores, [self.cameras[self.images[name][1]] for name in (first, second)], self.how)


@dataclass(frozen=True)
class Judged:
    """What came out of a pair."""

    number: int  # COLMAP's pair_id
    indices: NDArray[np.uint32]  # (M, 2) of keypoints, of the image with the smaller id first
    look: FirstLook | None  # None: all are accepted
    geometry: TwoView | None
    significance: float | None
    verdict: Verdict | None
    work: float


def judging_of(database: Path, how: How) -> Judging:
    """Of the images and cameras of a database."""
    cameras = read_cameras(database)
    wanted = "name, image_id, camera_id, width, height"
    query = f"SELECT {wanted} FROM images JOIN cameras USING (camera_id) ORDER BY name"
    rows = array("q")

    def names() -> Iterator[str]:
        for name, *row in connection.execute(query):
            rows.extend(row)
            yield name

    with closing(sqlite3.connect(database)) as connection:
        return Judging(Column(Names(names()), _Rows(rows)), cameras, how)


def verification_work(matches: Iterable[NamedMatches], judging: Judging) -> float:
    """How much work `verify_pairs` has with all these pairs, as it tells it."""
    return sum(judging.work(first, second, found.scores) for first, second, found in matches)


def is_verified(database: Path) -> bool:
    """Whether all pairs have their verdicts."""
    return read_record(database, _DONE) is not None


def verify_pairs(database: Path, matches: Iterable[NamedMatches], judging: Judging, advance: Advance) -> None:
    """Writes matches, geometries and verdicts of the pairs that have none yet: a killed job resumes.

    Args:
        database: with images and keypoints, which no other process has open.
        matches: of all pairs.
        judging: of the database.
        advance: told how many pairs are done, and how much work they were.
    """
    with writing_verdicts(database) as (connection, done):

        def keypoints(name: str) -> NDArray[np.floating]:
            query = "SELECT data, cols FROM keypoints WHERE image_id = ?"
            ((data, columns),) = connection.execute(query, (judging.images[name][0],))
            return np.frombuffer(data, np.float32).reshape(-1, columns)

        def open_pairs() -> Iterator[NamedMatches]:
            for first, second, found in matches:
                if judging.number(first, second) in done:
                    advance(1, judging.work(first, second, found.scores))
                else:
                    yield first, second, found

        write_verdicts(connection, judge(judging, keypoints, open_pairs()), advance)


@contextmanager
def writing_verdicts(database: Path) -> Iterator[tuple[sqlite3.Connection, Container[int]]]:
    """The database to write verdicts into, and the pair_ids of those that are there; at the end all are."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {PAIRS} ({_COLUMNS})")
        connection.commit()
        yield connection, _PairsThere(connection)
        write_records(connection, {_DONE: "yes"})
        connection.commit()


class _PairsThere:
    """The pair_ids that are in a database: 8 bytes each, where a set of millions takes ten times that."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        tables = (connection.execute(f"SELECT pair_id FROM {table}") for table in (PAIRS, "matches"))
        numbers = np.unique(np.fromiter(chain.from_iterable(chain.from_iterable(tables)), np.int64))
        self._ascending = array("q", numbers.tobytes())

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        place = bisect_left(self._ascending, number)
        return place < len(self._ascending) and self._ascending[place] == number


def write_verdicts(connection: sqlite3.Connection, judged: Iterable[Judged], advance: Advance) -> None:
    """As they come; a kill costs those that were not committed."""
    for waiting, one in enumerate(judged, 1):
        _write(connection, one)
        if waiting % _AT_ONCE == 0:
            connection.commit()
        advance(1, one.work)


def judge(judging: Judging, read: ReadKeypoints, matches: Iterable[NamedMatches]) -> Iterator[Judged]:
    """Pairs in their order: judged in threads, read in this one."""
    pairs = _Pairs(judging, read)
    waiting = (pairs.of(first, second, found) for first, second, found in matches)
    with threadpool_limits(1, "blas"):
        for _, judged in WorkerThreads(cores()).each(waiting, partial(_judge, judging=judging)):
            yield judged


def verdicts(database: Path) -> dict[str, int]:
    """How many pairs got which verdict; nothing where they were not judged."""
    if not is_verified(database):
        return {}
    with closing(open_for_reading(database)) as connection:
        query = f"SELECT verdict, COUNT(*) FROM {PAIRS} GROUP BY verdict ORDER BY COUNT(*) DESC"
        return dict(connection.execute(query).fetchall())


@dataclass(frozen=True)
class _Pair:
    """As COLMAP orders it: the image with the smaller id first."""

    number: int  # COLMAP's pair_id
    indices: NDArray[np.uint32]  # (M, 2) of keypoints
    scores: Scores
    a: Points
    b: Points
    camera_a: int  # camera_id
    camera_b: int
    work: float


class _Pairs:
    """The matched points of pairs."""

    def __init__(self, judging: Judging, read: ReadKeypoints) -> None:
        self._judging = judging
        self._keypoints = lru_cache(_IMAGES)(lambda name: read(name)[:, :2].astype(np.float64))

    def of(self, first: str, second: str, found: Matches) -> _Pair:
        """Of two names."""
        images = self._judging.images
        sides = list(zip((first, second), found.indices.T, strict=True))
        if images[first][0] > images[second][0]:
            sides.reverse()
        (a, camera_a), (b, camera_b) = (self._points(name, rows) for name, rows in sides)
        ordered = np.ascontiguousarray(np.stack([rows for _, rows in sides], axis=1), np.uint32)
        number, work = self._judging.number(first, second), self._judging.work(first, second, found.scores)
        return _Pair(number, ordered, found.scores, a, b, camera_a, camera_b, work)

    def _points(self, name: str, rows: NDArray[np.uint32]) -> tuple[Points, int]:
        """Of an image, and its camera."""
        _, camera, width, height = self._judging.images[name]
        return Points(self._keypoints(name)[rows], width, height), camera


def _work(scores: Scores, cameras: Sequence["pycolmap.Camera"], how: How) -> float:
    """Of a pair with these two cameras, in first looks (0.3 ms on one processor).

    Most pairs cost no more. A geometry takes the more samples the fewer matches are right; where both focal lengths are
    known, those of an essential matrix come on top, which take long.
    """
    if not how.verify:
        return 1.0
    strong = count_strong(scores)
    share = _ARRANGED_SHARE * (strong >= LEAST_STRONG)
    if strong >= 2 * LEAST_STRONG or how.accept_all:
        share = 1.0
    known = all(camera.has_prior_focal_length for camera in cameras)
    samples = (_SAMPLES_WORK + _ESSENTIAL_WORK * known) * math.exp(-strong / _FEW_STRONG)
    return 1 + share * (_GEOMETRY_WORK * (1 + known) + _MATCH_WORK * len(scores) + samples)


def _judge(pair: _Pair, *, judging: Judging) -> Judged:
    """Of one pair, with the scores of its matches."""
    cameras, how, judged = judging.cameras, judging.how, partial(Judged, pair.number, pair.indices, work=pair.work)
    if not how.verify:
        return judged(None, None, None, None)
    look = None if how.accept_all else first_look(pair.a, pair.b, pair.scores, rotations=how.rotations)
    if look is not None and look.verdict is not None:
        return judged(look, None, None, look.verdict)
    camera_a, camera_b = cameras[pair.camera_a], cameras[pair.camera_b]
    geometry = estimate_two_view(pair.a.xy, pair.b.xy, camera_a, camera_b, pair.scores)
    if look is None:
        return judged(None, geometry, None, None)
    if geometry is None:
        return judged(look, None, None, Verdict.NO_GEOMETRY)
    if geometry.configuration == Configuration.WATERMARK:
        return judged(look, geometry, None, Verdict.WATERMARK)
    chances, sample, solutions = _chances(geometry, pair, camera_a, camera_b)
    by_chance = significance(chances, pair.scores, sample=sample, solutions=solutions)
    return judged(look, geometry, by_chance, Verdict.ACCEPTED if by_chance < SIGNIFICANT else Verdict.CHANCE)


def _write(connection: sqlite3.Connection, judged: Judged) -> None:
    """The verdict; of accepted pairs the matches and the geometry, too. The caller commits."""
    look, geometry, indices = judged.look, judged.geometry, judged.indices
    if look is not None:
        row = (judged.number, len(indices), look.strong, look.arrangement, judged.significance, judged.verdict)
        connection.execute(f"INSERT INTO {PAIRS} VALUES (?, ?, ?, ?, ?, ?)", row)
    if judged.verdict not in (None, Verdict.ACCEPTED) or not len(indices):
        return
    matches = (judged.number, len(indices), indices.tobytes())
    connection.execute("INSERT INTO matches (pair_id, rows, cols, data) VALUES (?, ?, 2, ?)", matches)
    if geometry is not None:
        inliers = indices[geometry.inliers]
        matrices = [None if one is None else one.tobytes() for one in (geometry.f, geometry.e, geometry.h)]
        columns = "pair_id, rows, cols, data, config, F, E, H"
        values = (judged.number, len(inliers), 2, inliers.tobytes(), int(geometry.configuration), *matrices)
        connection.execute(f"INSERT INTO two_view_geometries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def _chances(
    geometry: TwoView, pair: _Pair, camera_a: "pycolmap.Camera", camera_b: "pycolmap.Camera"
) -> tuple[Floats, int, int]:
    """For each match, how probable its fit is by chance; the matches of a minimal sample, and its solutions.

    The worse of both directions counts.
    """
    a, b = pair.a, pair.b
    if geometry.configuration == Configuration.CALIBRATED and geometry.e is not None:
        rays_a, rays_b = rays(camera_a, a.xy), rays(camera_b, b.xy)
        in_b = _to_lines(geometry.e, rays_a, rays_b) * camera_b.mean_focal_length()
        in_a = _to_lines(geometry.e.T, rays_b, rays_a) * camera_a.mean_focal_length()
        sample, solutions, chance = 5, 10, line_chance
    elif geometry.configuration == Configuration.UNCALIBRATED and geometry.f is not None:
        in_b, in_a = _to_lines(geometry.f, a.xy, b.xy), _to_lines(geometry.f.T, b.xy, a.xy)
        sample, solutions, chance = 7, 3, line_chance
    else:  # planar or panoramic
        transfer = np.eye(3) if geometry.h is None else geometry.h
        in_b = np.linalg.norm(transferred(transfer, a.xy) - b.xy, axis=1)
        in_a = np.linalg.norm(transferred(np.asarray(np.linalg.pinv(transfer), np.float64), b.xy) - a.xy, axis=1)
        sample, solutions, chance = 4, 1, point_chance
    worse = np.maximum(chance(in_b, b.width, b.height), chance(in_a, a.width, a.height))
    return np.nan_to_num(worse, nan=1.0), sample, solutions


def _to_lines(matrix: Floats, points: Floats, others: Floats) -> Floats:
    """(M,) distances of `others` from the epipolar lines of `points`."""
    lines = np.c_[points, np.ones(len(points))] @ matrix.T
    across = np.maximum(np.hypot(lines[:, 0], lines[:, 1]), 1e-12)
    return np.asarray(np.abs((lines * np.c_[others, np.ones(len(others))]).sum(axis=1)) / across, np.float64)
