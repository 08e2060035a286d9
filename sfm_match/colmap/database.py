"""What COLMAP reads of `database.db` before any matches: cameras, rigs, frames, images, keypoints."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.cameras import CameraPlan

if TYPE_CHECKING:
    import pycolmap


def write_images(
    path: Path,
    cameras: Iterable[CameraPlan],
    camera_model: str,
    keypoints: Iterable[tuple[str, NDArray[np.float32]]],
) -> None:
    """Makes a database of images and their keypoints, all or nothing.

    Args:
        path: of a file that is not there yet.
        cameras: with their images.
        camera_model: COLMAP's name.
        keypoints: (N, 2) of each image, raw pixels, the centre of the top-left one at (0.5, 0.5).
    """
    import pycolmap

    database = pycolmap.Database.open(str(path))
    try:
        with pycolmap.DatabaseTransaction(database):
            ids: dict[str, int] = {}
            for plan in cameras:
                ids |= _write_camera(database, plan, camera_model)
            for name, points in keypoints:
                database.write_keypoints(ids[name], points)
    finally:
        database.close()


def _write_camera(database: "pycolmap.Database", plan: CameraPlan, camera_model: str) -> dict[str, int]:
    """Writes a camera, its rig, its images and their frames. Returns image ids by name."""
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(1, camera_model, plan.focal, plan.width, plan.height)
    if plan.params is not None:
        camera.params = list(plan.params)
    camera.has_prior_focal_length = plan.known_focal
    camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
    rig_id = database.write_rig(rig)
    ids = {}
    for name in plan.images:
        image = pycolmap.Image(name=name, camera_id=camera_id)
        image.image_id = ids[name] = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig_id
        frame.add_data_id(image.data_id)
        database.write_frame(frame)
    return ids
