"""Which pairs of a database are accepted, and their two-view geometries, in one pass over the matches.

The first look (`matching.acceptance`) sees the matches alone: a pair that it rejects costs no geometry. Of the others
a geometry is estimated, and judged by what chance would give. The database then holds the matches of accepted pairs,
whole; those of all pairs are in `matches/`, and what was seen of each pair in the table `sfm_match_pairs`.
"""

import math
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
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


@dataclass(frozen=True)
class How:
    """How pairs are judged."""

    verify: bool = True  # or take all matches as they are, without geometries
    accept_all: bool = False  # every pair with enough inliers, as COLMAP does
    rotations: int = 1  # quarter turns that one image of a pair may have against the other: 1 or 4


def verification_work(database: Path, matches: Iterable[NamedMatches], how: How) -> float:
    """How much work `verify_pairs` has with all these pairs, as it tells it; 0 where it has been done."""
    if read_record(database, _DONE) is not None:
        return 0.0
    with closing(sqlite3.connect(database)) as connection:
        keypoints, cameras = _Keypoints(connection), read_cameras(database)
        return sum(_work(found.scores, keypoints.cameras(a, b), cameras, how) for a, b, found in matches)


def verify_pairs(database: Path, matches: Iterable[NamedMatches], how: How, advance: Advance) -> None:
    """Writes matches, geometries and verdicts of the pairs that have none yet: a killed job resumes.

    Args:
        database: with images and keypoints, which no other process has open.
        matches: of all pairs.
        how: pairs are judged.
        advance: told how many pairs are done, and how much work they were.
    """
    if read_record(database, _DONE) is not None:
        return
    cameras = read_cameras(database)
    with closing(sqlite3.connect(database)) as connection, threadpool_limits(1, "blas"):
        connection.execute(f"CREATE TABLE IF NOT EXISTS {PAIRS} ({_COLUMNS})")
        connection.commit()
        work = partial(_work, cameras=cameras, how=how)
        judged = _each(connection, matches, partial(_judge, how=how, cameras=cameras), work, advance)
        waiting = 0
        for one, scores in judged:
            _write(connection, one)
            waiting += 1
            if waiting == _AT_ONCE:
                connection.commit()
                waiting = 0
            advance(1, work(scores, (one.pair.camera_a, one.pair.camera_b)))
        write_records(connection, {_DONE: "yes"})
        connection.commit()


def verdicts(database: Path) -> dict[str, int]:
    """How many pairs got which verdict; nothing where they were not judged."""
    if read_record(database, _DONE) is None:
        return {}
    with closing(open_for_reading(database)) as connection:
        query = f"SELECT verdict, COUNT(*) FROM {PAIRS} GROUP BY verdict ORDER BY COUNT(*) DESC"
        return dict(connection.execute(query).fetchall())


class _Keypoints:
    """The matched points of a pair, from the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        rows = connection.execute(
            "SELECT name, image_id, images.camera_id, width, height FROM images JOIN cameras USING (camera_id)"
        )
        self._images = {name: rest for name, *rest in rows}
        self._of = lru_cache(_IMAGES)(self._read)

    def _read(self, image: int) -> Floats:
        query = "SELECT data, cols FROM keypoints WHERE image_id = ?"
        ((data, columns),) = self._connection.execute(query, (image,))
        return np.frombuffer(data, np.float32).reshape(-1, columns)[:, :2].astype(np.float64)

    def number(self, first: str, second: str) -> int:
        """COLMAP's pair_id of two names."""
        low, high = sorted((self._images[first][0], self._images[second][0]))
        return int(low * MOST_IMAGES + high)

    def cameras(self, first: str, second: str) -> tuple[int, int]:
        """The camera_id of each of two names."""
        return self._images[first][1], self._images[second][1]

    def pair(self, first: str, second: str, indices: NDArray[np.uint32]) -> "_Pair":
        """Of two names; a match is a row of `indices`."""
        sides = list(zip((first, second), indices.T, strict=True))
        if self._images[first][0] > self._images[second][0]:
            sides.reverse()
        (a, camera_a), (b, camera_b) = (self._points(name, rows) for name, rows in sides)
        ordered = np.ascontiguousarray(np.stack([rows for _, rows in sides], axis=1), np.uint32)
        return _Pair(self.number(first, second), ordered, a, b, camera_a, camera_b)

    def _points(self, name: str, rows: NDArray[np.uint32]) -> tuple[Points, int]:
        """Of an image, and its camera."""
        image, camera, width, height = self._images[name]
        return Points(self._of(image)[rows], width, height), camera


@dataclass(frozen=True)
class _Pair:
    """As COLMAP orders it: the image with the smaller id first."""

    number: int  # COLMAP's pair_id
    indices: NDArray[np.uint32]  # (M, 2) of keypoints
    a: Points
    b: Points
    camera_a: int  # camera_id
    camera_b: int


_Matched = tuple[_Pair, Scores]


@dataclass(frozen=True)
class _Judged:
    """What came out of a pair."""

    pair: _Pair
    look: FirstLook | None  # None: all are accepted
    geometry: TwoView | None
    significance: float | None
    verdict: Verdict | None


def _each(
    connection: sqlite3.Connection,
    matches: Iterable[NamedMatches],
    judge: Callable[[_Matched], _Judged],
    work: Callable[[Scores, tuple[int, int]], float],
    advance: Advance,
) -> Iterator[tuple[_Judged, Scores]]:
    """Of the pairs that are not in the database, in their order; judged in threads, read in this one."""
    done, keypoints = _pairs_there(connection), _Keypoints(connection)

    def open_pairs() -> Iterator[_Matched]:
        for first, second, found in matches:
            number = keypoints.number(first, second)
            place = bisect_left(done, number)
            if place < len(done) and done[place] == number:
                advance(1, work(found.scores, keypoints.cameras(first, second)))
            else:
                yield keypoints.pair(first, second, found.indices), found.scores

    for (_, scores), judged in WorkerThreads(cores()).each(open_pairs(), judge):
        yield judged, scores


def _pairs_there(connection: sqlite3.Connection) -> "array[int]":
    """The pair_ids that are in the database, ascending: 8 bytes each, where a set of millions takes ten times that."""
    tables = (connection.execute(f"SELECT pair_id FROM {table}") for table in (PAIRS, "matches"))
    numbers = np.unique(np.fromiter(chain.from_iterable(chain.from_iterable(tables)), np.int64))
    return array("q", numbers.tobytes())


def _work(scores: Scores, pair: tuple[int, int], cameras: Mapping[int, "pycolmap.Camera"], how: How) -> float:
    """Of a pair of camera_ids, as far as the scores tell beforehand, in first looks (0.3 ms on one processor).

    Most pairs cost no more. A geometry takes the more samples the fewer matches are right; where both focal lengths are
    known, those of an essential matrix come on top, which take long.
    """
    if not how.verify:
        return 1.0
    strong = count_strong(scores)
    share = _ARRANGED_SHARE * (strong >= LEAST_STRONG)
    if strong >= 2 * LEAST_STRONG or how.accept_all:
        share = 1.0
    known = all(cameras[one].has_prior_focal_length for one in pair)
    samples = (_SAMPLES_WORK + _ESSENTIAL_WORK * known) * math.exp(-strong / _FEW_STRONG)
    return 1 + share * (_GEOMETRY_WORK * (1 + known) + _MATCH_WORK * len(scores) + samples)


def _judge(matched: _Matched, *, how: How, cameras: Mapping[int, "pycolmap.Camera"]) -> _Judged:
    """Of one pair, with the scores of its matches."""
    pair, scores = matched
    if not how.verify:
        return _Judged(pair, None, None, None, None)
    look = None if how.accept_all else first_look(pair.a, pair.b, scores, rotations=how.rotations)
    if look is not None and look.verdict is not None:
        return _Judged(pair, look, None, None, look.verdict)
    camera_a, camera_b = cameras[pair.camera_a], cameras[pair.camera_b]
    geometry = estimate_two_view(pair.a.xy, pair.b.xy, camera_a, camera_b, scores)
    if look is None:
        return _Judged(pair, None, geometry, None, None)
    if geometry is None:
        return _Judged(pair, look, None, None, Verdict.NO_GEOMETRY)
    if geometry.configuration == Configuration.WATERMARK:
        return _Judged(pair, look, geometry, None, Verdict.WATERMARK)
    chances, sample, solutions = _chances(geometry, pair, camera_a, camera_b)
    by_chance = significance(chances, scores, sample=sample, solutions=solutions)
    return _Judged(pair, look, geometry, by_chance, Verdict.ACCEPTED if by_chance < SIGNIFICANT else Verdict.CHANCE)


def _write(connection: sqlite3.Connection, judged: _Judged) -> None:
    """The verdict; of accepted pairs the matches and the geometry, too. The caller commits."""
    pair, look, geometry = judged.pair, judged.look, judged.geometry
    if look is not None:
        row = (pair.number, len(pair.indices), look.strong, look.arrangement, judged.significance, judged.verdict)
        connection.execute(f"INSERT INTO {PAIRS} VALUES (?, ?, ?, ?, ?, ?)", row)
    if judged.verdict not in (None, Verdict.ACCEPTED) or not len(pair.indices):
        return
    matches = (pair.number, len(pair.indices), pair.indices.tobytes())
    connection.execute("INSERT INTO matches (pair_id, rows, cols, data) VALUES (?, ?, 2, ?)", matches)
    if geometry is not None:
        inliers = pair.indices[geometry.inliers]
        matrices = [None if one is None else one.tobytes() for one in (geometry.f, geometry.e, geometry.h)]
        columns = "pair_id, rows, cols, data, config, F, E, H"
        values = (pair.number, len(inliers), 2, inliers.tobytes(), int(geometry.configuration), *matrices)
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
