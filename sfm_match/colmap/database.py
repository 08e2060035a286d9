"""What COLMAP reads of `database.db` before any matches: cameras, rigs, frames, images, GPS, keypoints."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.cameras import CameraPlan
from sfm_match.colmap.georeference import down
from sfm_match.images.files import Header

if TYPE_CHECKING:
    import pycolmap


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
    database = pycolmap.Database.open(str(path))
    try:
        with pycolmap.DatabaseTransaction(database):
            ids: dict[str, int] = {}
            for plan in cameras:
                _write_camera(database, plan, headers)
                ids |= plan.images
            for name, points in keypoints:
                database.write_keypoints(ids[name], points)
    finally:
        database.close()


def _write_camera(database: "pycolmap.Database", plan: CameraPlan, headers: Mapping[str, Header]) -> None:
    """Writes a camera, its rig, its images and their frames, which have their images' numbers."""
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(1, plan.model, plan.focal, plan.width, plan.height)
    if plan.params is not None:
        camera.params = list(plan.params)
    camera.has_prior_focal_length = plan.known_focal
    camera.camera_id = plan.number
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig()
    rig.rig_id = plan.number
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, plan.number))
    database.write_rig(rig, use_rig_id=True)
    for name, number in plan.images.items():
        image = pycolmap.Image(name=name, camera_id=plan.number)
        image.image_id = number
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = number, plan.number
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        _write_pose_prior(database, image, headers[name])


def _write_pose_prior(database: "pycolmap.Database", image: "pycolmap.Image", header: Header) -> None:
    """What COLMAP's own import writes of an image with GPS. No covariance: EXIF tells none."""
    import pycolmap

    if header.location is None:
        return
    prior = pycolmap.PosePrior()
    prior.corr_data_id = image.data_id
    prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.WGS84
    latitude, longitude, altitude = header.location
    prior.position = np.array([latitude, longitude, 0.0 if altitude is None else altitude])
    prior.gravity = down(header.orientation)
    database.write_pose_prior(prior)
