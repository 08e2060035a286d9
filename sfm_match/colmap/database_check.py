"""Whether `database.db` can be believed, before COLMAP reads it.

COLMAP trusts what a database holds: of one flipped bit it may crash, run without end, or make another model. A database
as `import` left it needs no more than a look at SQLite's own structures. One that was changed since, which is allowed,
may hold anything, and all of it is looked at.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.colmap.queries import (
    CONTENT,
    MOST_IMAGES,
    DamagedDatabase,
    DatabaseError,
    content_digest,
    file_state,
    matches_of,
    ours_as_sealed,
    read_record,
    reading,
)
from sfm_match.job.log import LOGGER

_OLDEST = 4_020_000  # COLMAP 4.2, as its databases have it: sfm-match never had an older one
_LARGEST = 1 << 24  # pixels of a side
_KEYPOINT_COLUMNS = (2, 4, 6)
_CONFIGURATIONS = range(9)  # of COLMAP's two-view geometries
_MOVES = {"F": 72, "E": 72, "H": 72, "qvec": 32, "tvec": 24}  # bytes
_CAMERA = 0  # COLMAP's type of sensor


def check_database(path: Path) -> bool:
    """Looks at a database that sfm-match made, once a process as long as the file stays as it is.

    Returns:
        Whether it was changed since `import`, to something that can be; a warning says so, too.

    Raises:
        DatabaseError: it is damaged, of a newer COLMAP, in use, or cannot be opened.
    """
    state = file_state(path)
    edited = _checked(path, state)
    if edited:
        _tell(path, state)
    return edited


@lru_cache(8)
def _tell(path: Path, _: tuple[int, ...]) -> None:
    LOGGER.warning(
        "%s: changed since import; it is taken as it is (`sfm-match import --overwrite` builds it anew)", path
    )


def trouble(path: Path) -> DatabaseError | None:
    """What `check_database` would raise; None where nothing is wrong."""
    try:
        _checked(path, file_state(path))
    except DatabaseError as error:
        return error
    return None


@lru_cache(8)
def _checked(path: Path, _: tuple[int, ...]) -> bool:
    with reading(path) as connection:
        ((told, *_rest),) = connection.execute("PRAGMA integrity_check(1)").fetchmany(1)
        if told != "ok":
            raise DamagedDatabase(path, str(told))
        (made_by,) = connection.execute("PRAGMA user_version").fetchone()
    if made_by > _ours():
        raise DatabaseError(
            f"{path}: written by a newer COLMAP ({_words(made_by)}, this one is {_words(_ours())}); "
            "update pycolmap, or `sfm-match import --overwrite` builds it anew"
        )
    if made_by < _OLDEST:
        raise DamagedDatabase(path, f"it says it is of COLMAP {_words(made_by)}")
    if content_digest(path) == read_record(path, CONTENT):
        return False
    if not ours_as_sealed(path):
        raise DamagedDatabase(path, "what sfm-match noted in it is not as it was written")
    with reading(path) as connection:
        nonsense = next(_nonsense(connection), None)
    if nonsense is not None:
        raise DamagedDatabase(path, nonsense)
    return True


def _ours() -> int:
    """The version of COLMAP that is installed, as its databases have it."""
    numbers = [int(number) for number in re.findall(r"\d+", version("pycolmap"))[:3]]
    return sum(number * scale for number, scale in zip(numbers, (1_000_000, 10_000, 100), strict=False))


def _words(number: int) -> str:
    return f"{number // 1_000_000}.{number // 10_000 % 100}.{number // 100 % 100}"


@dataclass(frozen=True)
class _Known:
    """What rows may refer to."""

    cameras: Mapping[int, tuple[int, int]]  # camera_id -> width and height
    images: Mapping[int, int]  # image_id -> camera_id
    keypoints: Mapping[int, int]  # image_id -> how many


def _nonsense(connection: sqlite3.Connection) -> Iterator[str]:
    """What COLMAP cannot make sense of. Whoever goes on after the first finding may find what Python cannot, either."""
    cameras: dict[int, tuple[int, int]] = {}
    for number, model, width, height, params in connection.execute(
        "SELECT camera_id, model, width, height, params FROM cameras"
    ):
        cameras[number] = width, height
        if not _is_camera(model, width, height, params):
            yield f"camera {number} has parameters that no camera has"
    images = dict(connection.execute("SELECT image_id, camera_id FROM images").fetchall())
    if not images:
        yield "it holds no image"
    for number, name, camera in connection.execute("SELECT image_id, name, camera_id FROM images"):
        if camera not in cameras or not isinstance(name, str) or not name:
            yield f"image {number} has no name or no camera"
    yield from _of_rigs(connection, cameras, images)
    keypoints: dict[int, int] = {}
    for number, rows, columns, data in connection.execute("SELECT image_id, rows, cols, data FROM keypoints"):
        keypoints[number] = rows
        if number not in images or columns not in _KEYPOINT_COLUMNS or not _is_size(data, rows, columns):
            yield f"the keypoints of image {number} are not as many as they should be"
        points = np.frombuffer(data or b"", np.float32).reshape(-1, columns)
        side = max(cameras[images[number]])
        if not (np.isfinite(points).all() and (np.abs(points[:, :2]) <= 2 * side).all()):
            yield f"keypoints of image {number} are far outside it"
        if len(points) > 1 and not np.ptp(points[:, :2], axis=0).any():  # of which the mapper finds no end
            yield f"all keypoints of image {number} are in one place"
    if any(number not in keypoints for number in images):
        yield "an image has no keypoints"
    known = _Known(cameras, images, keypoints)
    yield from _of_pairs(connection, known)
    yield from _of_priors(connection, known)


def _is_camera(model: Any, width: Any, height: Any, params: Any) -> bool:
    import pycolmap

    try:
        expected = pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(model), 1.0, 1, 1)
        values = np.frombuffer(params or b"", np.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    sides = all(isinstance(side, int) and 0 < side <= _LARGEST for side in (width, height))
    return (
        sides
        and len(values) == len(expected.params)
        and bool(np.isfinite(values).all())
        and all(0 < values[place] < _LARGEST for place in expected.focal_length_idxs())
    )


def _of_rigs(
    connection: sqlite3.Connection, cameras: Mapping[int, tuple[int, int]], images: Mapping[int, int]
) -> Iterator[str]:
    rigs: dict[int, set[int]] = {}
    for rig, sensor, kind in connection.execute("SELECT rig_id, ref_sensor_id, ref_sensor_type FROM rigs"):
        rigs[rig] = {sensor}
        if kind == _CAMERA and sensor not in cameras:
            yield f"rig {rig} has no camera"
    for rig, sensor, kind, place in connection.execute(
        "SELECT rig_id, sensor_id, sensor_type, sensor_from_rig FROM rig_sensors"
    ):
        rigs.setdefault(rig, set()).add(sensor)
        if (kind == _CAMERA and sensor not in cameras) or not _are_numbers(place, 56):
            yield f"a camera of rig {rig} is not there, or has no place"
    frames = dict(connection.execute("SELECT frame_id, rig_id FROM frames").fetchall())
    framed = set()
    for frame, image, sensor, kind in connection.execute(
        "SELECT frame_id, data_id, sensor_id, sensor_type FROM frame_data"
    ):
        if kind == _CAMERA:
            framed.add(image)
            if images.get(image) != sensor or sensor not in rigs.get(frames.get(frame, -1), ()):
                yield f"frame {frame} is not of a rig that is there"
    if framed != images.keys():
        yield "an image has no frame"


def _of_pairs(connection: sqlite3.Connection, known: _Known) -> Iterator[str]:
    moves = ", ".join(_MOVES)
    for table, more in (("matches", ""), ("two_view_geometries", f", config, {moves}")):
        for pair, rows, columns, data, *geometry in connection.execute(
            f"SELECT pair_id, rows, cols, data{more} FROM {table}"
        ):
            a, b = divmod(pair, MOST_IMAGES)
            if not (a < b and a in known.keypoints and b in known.keypoints):
                yield f"{table}: pair {pair} is of images that are not there"
            if not _is_size(data, rows, 2) or columns not in (0, 2):
                yield f"{table}: pair {pair} has not as many matches as it should"
            indices = matches_of(data)
            if (indices >= (known.keypoints[a], known.keypoints[b])).any():
                yield f"{table}: pair {pair} has matches of keypoints that are not there"
            if geometry and not (
                geometry[0] in _CONFIGURATIONS
                and all(_are_numbers(one, size) for one, size in zip(geometry[1:], _MOVES.values(), strict=True))
            ):
                yield f"{table}: pair {pair} has a geometry that cannot be"


def _of_priors(connection: sqlite3.Connection, known: _Known) -> Iterator[str]:
    query = "SELECT corr_data_id, corr_sensor_type, position, position_covariance, gravity FROM pose_priors"
    for image, kind, *blobs in connection.execute(query):
        sizes = [len(one) if isinstance(one, bytes) else 0 for one in blobs]
        fits = all(size in (0, right) for size, right in zip(sizes, (24, 72, 24), strict=True))  # NaN: not known
        if not fits or (kind == _CAMERA and image not in known.images):
            yield f"a position of image {image} is not as it should be"


def _is_size(data: Any, rows: Any, columns: int) -> bool:
    """Whether a blob holds as many numbers of 4 bytes."""
    if not isinstance(rows, int) or not isinstance(data, bytes | None):
        return False
    return rows >= 0 and len(data or b"") == 4 * rows * columns


def _are_numbers(data: Any, size: int) -> bool:
    """Whether a blob, if there is one, holds finite float64 of so many bytes."""
    return not data or (isinstance(data, bytes) and len(data) == size and bool(np.isfinite(np.frombuffer(data)).all()))
