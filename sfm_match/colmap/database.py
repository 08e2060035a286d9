"""What COLMAP reads of `database.db` before any matches: cameras, rigs, frames, images, GPS, keypoints."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.cameras import CameraPlan
from sfm_match.colmap.georeference import down
from sfm_match.images.files import Header

_KEYPOINTS_OF = "INSERT INTO keypoints (image_id, rows, cols, data) SELECT image_id, ?, ?, ? FROM images WHERE name = ?"


def write_images(
    path: Path,
    cameras: Iterable[CameraPlan],
    keypoints: Iterable[tuple[str, NDArray[np.float32]]],
    headers: Mapping[str, Header],
) -> None:
    """Makes a database of images and their keypoints, all or nothing.

    Args:
        path: of a file that is not there yet.
        cameras: with their images.
        keypoints: (N, 2) of each image, raw pixels, the centre of the top-left one at (0.5, 0.5).
        headers: of the images, for GPS.
    """
    import pycolmap

    hush_colmap()
    pycolmap.Database.open(str(path)).close()  # makes the tables
    # not by pycolmap, which ends the process where the disk is full
    with closing(sqlite3.connect(path)) as connection, connection:
        for plan in cameras:
            _write_camera(connection, plan, headers)
        for name, points in keypoints:
            row = (*points.shape, np.ascontiguousarray(points, np.float32).tobytes(), name)
            if connection.execute(_KEYPOINTS_OF, row).rowcount != 1:
                raise KeyError(name)


def _write_camera(connection: sqlite3.Connection, plan: CameraPlan, headers: Mapping[str, Header]) -> None:
    """Writes a camera, its rig, its images and their frames, which have their images' numbers."""
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(1, plan.model, plan.focal, plan.width, plan.height)
    params = np.array(camera.params if plan.params is None else plan.params, np.float64).tobytes()
    sensor = (plan.number, int(pycolmap.SensorType.CAMERA))
    row = (plan.number, int(camera.model), plan.width, plan.height, params, int(plan.known_focal))
    connection.execute("INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO rigs VALUES (?, ?, ?)", (plan.number, *sensor))
    for name, number in plan.images.items():
        connection.execute("INSERT INTO images VALUES (?, ?, ?)", (number, name, plan.number))
        connection.execute("INSERT INTO frames VALUES (?, ?)", (number, plan.number))
        connection.execute("INSERT INTO frame_data VALUES (?, ?, ?, ?)", (number, number, *sensor))
        _write_pose_prior(connection, (number, *sensor), headers[name])


def _write_pose_prior(connection: sqlite3.Connection, data: tuple[int, int, int], header: Header) -> None:
    """What COLMAP's own import writes of an image with GPS. No covariance: EXIF tells none."""
    import pycolmap

    if header.location is None:
        return
    latitude, longitude, altitude = header.location
    position = np.array([latitude, longitude, 0.0 if altitude is None else altitude], np.float64)
    gravity = np.asarray(down(header.orientation), np.float64)
    blobs = [one.tobytes() for one in (position, np.full(9, np.nan), gravity)]
    columns = "corr_data_id, corr_sensor_id, corr_sensor_type, position, position_covariance, gravity"
    system = int(pycolmap.PosePriorCoordinateSystem.WGS84)
    query = f"INSERT INTO pose_priors ({columns}, coordinate_system) VALUES (?, ?, ?, ?, ?, ?, ?)"
    connection.execute(query, (*data, *blobs, system))
