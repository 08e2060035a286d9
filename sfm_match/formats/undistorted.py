"""Undistorted photographs and their model with PINHOLE cameras, as COLMAP's `image_undistorter` makes them.

`images/`, `sparse/0` and, where the job has masks, `masks/NAME.png`: the layout that 3D Gaussian splatting, gsplat and
OpenMVS read. Of several models, the largest. Outside the photograph, undistorted masks are black.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfm_match.errors import UsageError
from sfm_match.formats.photographs import (
    Pixels,
    copy_photograph,
    for_each_image,
    mask_name,
    raw_mask,
    read_photograph,
    write_pixels,
    written_name,
)
from sfm_match.results import Results

if TYPE_CHECKING:
    import pycolmap

_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    distorted = results.model
    model = _undistorted(distorted)

    def write_image(image: "pycolmap.Image") -> None:
        camera = distorted.cameras[image.camera_id]
        name = distorted.images[image.image_id].name  # of the job
        source, target = results.image_folder / name, out / "images" / image.name
        if camera.model_name in _PINHOLES:
            copy_photograph(source, target, camera)
        else:
            write_pixels(target, _warped(read_photograph(source, camera), camera))
        if results.mask_folder is not None:
            mask = raw_mask(results, name, camera)
            write_pixels(out / "masks" / mask_name(image.name), _warped(mask, camera))

    for_each_image(write_image, [model.images[number] for number in model.reg_image_ids()])
    (out / "sparse" / "0").mkdir(parents=True)
    model.write(str(out / "sparse" / "0"))
    return sorted(path for name in ("images", "masks", "sparse") for path in (out / name).rglob("*") if path.is_file())


def _undistorted(model: "pycolmap.Reconstruction") -> "pycolmap.Reconstruction":
    """The model with PINHOLE cameras, and its keypoints where they are in undistorted images.

    Raises:
        UsageError: a camera sees all around.
    """
    import pycolmap

    found = copy.deepcopy(model)
    for number, camera in model.cameras.items():
        if not camera.is_perspective():
            raise UsageError(f"--to undistorted: camera {number} is {camera.model_name}, of which no pinhole is made")
        found.cameras[number] = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    for image in found.images.values():
        image.name = written_name(image.name)
        camera, pinhole = model.cameras[image.camera_id], found.cameras[image.camera_id]
        keypoints = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
        normalised = camera.cam_from_img(keypoints)  # (N, 2) on the plane z = 1
        moved = pinhole.img_from_cam(np.column_stack((normalised, np.ones(len(normalised)))))
        for point, xy in zip(image.points2D, moved, strict=True):
            point.xy = xy
    return found


def _warped(pixels: Pixels, camera: "pycolmap.Camera") -> Pixels:
    """Raw pixels as the undistorted camera sees them; of a mask the nearest ones, so that it stays black and white."""
    import pycolmap

    if camera.model_name in _PINHOLES:
        return pixels
    options = pycolmap.UndistortCameraOptions()
    if pixels.ndim == 2:
        options.warp_options.interpolation = pycolmap.WarpImageOptions.Interpolation.NEAREST_NEIGHBOR
    bitmap, _ = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(pixels), camera)
    return np.asarray(bitmap.to_array(), np.uint8)
