"""Which pairs of a database are accepted: before COLMAP verifies them, and by what it found.

Matches are written through the first look (`matching.acceptance`): those of a pair that it rejects stay out, and cost
no geometry. After COLMAP's verification, pairs whose geometry chance explains go, too. The database then holds the
matches of accepted pairs, whole; those of all pairs are in `matches/`, and what was seen of each pair in the table
`sfm_match_pairs`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.cameras import read_cameras
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS, open_for_reading, read_record, write_records
from sfm_match.matching.acceptance import (
    SIGNIFICANT,
    Floats,
    Points,
    Verdict,
    first_look,
    line_chance,
    point_chance,
    significance,
)
from sfm_match.store.matches import Matches

if TYPE_CHECKING:
    import pycolmap

RANSAC_SEED = 0
_WRITTEN, _JUDGED = "matches written", "pairs judged"  # notes in the database
_COLUMNS = (
    "pair_id INTEGER PRIMARY KEY, matches INTEGER, strong INTEGER, arrangement REAL, significance REAL, verdict TEXT"
)
_CALIBRATED, _UNCALIBRATED, _WATERMARK = 2, 3, 7  # COLMAP's TwoViewGeometry::ConfigurationType
_IMAGES = 192  # whose keypoints are held; tiles bring pairs of at most 64 images together

NamedMatches = tuple[str, str, Matches]


def write_matches(
    database: Path, matches: Iterable[NamedMatches], *, accept_all: bool = False, rotations: int = 1
) -> None:
    """Writes the matches of every pair that may be one; does nothing where an earlier call did.

    Args:
        database: with images and keypoints, which no other process has open.
        matches: of all pairs.
        accept_all: leave the choice to COLMAP's verification.
        rotations: quarter turns that one image of a pair may have against the other: 1 or 4.
    """
    if read_record(database, _WRITTEN) is not None:
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {PAIRS} ({_COLUMNS})")
        keypoints = _Keypoints(connection)
        for first, second, found in matches:
            pair = keypoints.pair(first, second, found.indices)
            seen = None if accept_all else first_look(pair.a, pair.b, found.scores, rotations=rotations)
            if seen is not None:
                judged = (pair.number, len(found.indices), seen.strong, seen.arrangement, seen.verdict)
                connection.execute(f"INSERT INTO {PAIRS} VALUES (?, ?, ?, ?, NULL, ?)", judged)
            if len(found.indices) and (seen is None or seen.verdict is None):
                packed = (pair.number, len(pair.indices), pair.indices.tobytes())
                connection.execute("INSERT INTO matches (pair_id, rows, cols, data) VALUES (?, ?, 2, ?)", packed)
        write_records(connection, {_WRITTEN: "yes"})


def verify(database: Path, matches: Callable[[], Iterable[NamedMatches]]) -> None:
    """Estimates a two-view geometry of the pairs that `write_matches` left, and judges it; resumes after a kill.

    Args:
        database: which no other process has open.
        matches: gives the matches of all pairs, with their scores, each time it is called.
    """
    _estimate(database)
    if verdicts(database) and read_record(database, _JUDGED) is None:
        cameras = read_cameras(database)
        with closing(sqlite3.connect(database)) as connection, connection:
            _judge_all(connection, cameras, matches())


def _estimate(database: Path) -> None:
    import pycolmap

    hush_colmap()
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = RANSAC_SEED  # the same matches give the same geometry
    # as many samples as its confidence of 0.999 asks for, not three times as many: of hard pairs of lund and of
    # strangers the same inliers were found in a third of the time
    options.ransac.dyn_num_trials_multiplier = 1.0
    pycolmap.geometric_verification(str(database), two_view_geometry_options=options)


def verdicts(database: Path) -> dict[str, int]:
    """How many pairs got which verdict; nothing where they were not judged."""
    if read_record(database, _WRITTEN) is None:
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


def _judge_all(
    connection: sqlite3.Connection, cameras: Mapping[int, "pycolmap.Camera"], matches: Iterable[NamedMatches]
) -> None:
    open_pairs = {number for (number,) in connection.execute(f"SELECT pair_id FROM {PAIRS} WHERE verdict IS NULL")}
    keypoints = _Keypoints(connection)
    for first, second, found in matches:
        if keypoints.number(first, second) not in open_pairs:
            continue
        pair = keypoints.pair(first, second, found.indices)
        query = "SELECT rows, config, F, E, H FROM two_view_geometries WHERE pair_id = ?"
        rows, config, *matrices = connection.execute(query, (pair.number,)).fetchone() or (0, 0)
        by_chance = None
        if not rows:
            verdict = Verdict.NO_GEOMETRY
        elif config == _WATERMARK:
            verdict = Verdict.WATERMARK
        else:
            chances, sample, solutions = _chances(config, matrices, pair, cameras)
            by_chance = significance(chances, found.scores, sample=sample, solutions=solutions)
            verdict = Verdict.ACCEPTED if by_chance < SIGNIFICANT else Verdict.CHANCE
        update = f"UPDATE {PAIRS} SET significance = ?, verdict = ? WHERE pair_id = ?"
        connection.execute(update, (by_chance, verdict, pair.number))
        if verdict != Verdict.ACCEPTED:
            for table in ("matches", "two_view_geometries"):
                connection.execute(f"DELETE FROM {table} WHERE pair_id = ?", (pair.number,))
    write_records(connection, {_JUDGED: "yes"})


def _chances(
    config: int, matrices: Sequence[bytes | None], pair: _Pair, cameras: Mapping[int, "pycolmap.Camera"]
) -> tuple[Floats, int, int]:
    """For each match, how probable its fit is by chance; the matches of a minimal sample, and its solutions.

    The worse of both directions counts. The matrices are COLMAP's F, E and H: x_b^T F x_a = 0, x_b ~ H x_a.
    """
    f, e, h = (None if m is None else np.frombuffer(m, np.float64).reshape(3, 3) for m in matrices)
    a, b = pair.a, pair.b
    if config == _CALIBRATED and e is not None:  # in normalised coordinates, free of distortion
        camera_a, camera_b = cameras[pair.camera_a], cameras[pair.camera_b]
        rays_a, rays_b = _rays(camera_a, a.xy), _rays(camera_b, b.xy)
        in_b = _to_lines(e, rays_a, rays_b) * camera_b.mean_focal_length()
        in_a = _to_lines(e.T, rays_b, rays_a) * camera_a.mean_focal_length()
        sample, solutions, chance = 5, 10, line_chance
    elif config == _UNCALIBRATED and f is not None:
        in_b, in_a = _to_lines(f, a.xy, b.xy), _to_lines(f.T, b.xy, a.xy)
        sample, solutions, chance = 7, 3, line_chance
    else:  # planar or panoramic
        transfer = np.eye(3) if h is None else h
        in_b = np.linalg.norm(_mapped(transfer, a.xy) - b.xy, axis=1)
        in_a = np.linalg.norm(_mapped(np.asarray(np.linalg.pinv(transfer), np.float64), b.xy) - a.xy, axis=1)
        sample, solutions, chance = 4, 1, point_chance
    worse = np.maximum(chance(in_b, b.width, b.height), chance(in_a, a.width, a.height))
    return np.nan_to_num(worse, nan=1.0), sample, solutions


def _rays(camera: "pycolmap.Camera", points: Floats) -> Floats:
    """(M, 2) on the plane at distance 1; NaN where the distortion has no inverse."""
    rays: Any = camera.cam_from_img(points)
    return np.asarray(rays, np.float64).reshape(-1, 2)


def _to_lines(matrix: Floats, points: Floats, others: Floats) -> Floats:
    """(M,) distances of `others` from the epipolar lines of `points`."""
    lines = np.c_[points, np.ones(len(points))] @ matrix.T
    across = np.maximum(np.hypot(lines[:, 0], lines[:, 1]), 1e-12)
    return np.asarray(np.abs((lines * np.c_[others, np.ones(len(others))]).sum(axis=1)) / across, np.float64)


def _mapped(transfer: Floats, points: Floats) -> Floats:
    """(M, 2)."""
    homogeneous = np.c_[points, np.ones(len(points))] @ transfer.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:], np.float64)
