"""What the images of a model observe, as arrays.

pycolmap makes an object of each keypoint: 0.2 s for 50,000. In COLMAP's own file they are one after another.
"""

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.model_check import keypoints_of, walk

if TYPE_CHECKING:
    import pycolmap

_KEYPOINT = np.dtype([("xy", "<f8", 2), ("point3D_id", "<i8")])  # in images.bin
_NO_POINT = -1


@dataclass(frozen=True)
class Observations:
    """The keypoints of an image that have a point, in the order of the keypoints."""

    points: NDArray[np.int64]  # (N,) point3D_id
    xy: NDArray[np.float64]  # (N, 2) raw pixels


def observations(model: "pycolmap.Reconstruction") -> dict[int, Observations]:
    """By image_id, of the images that have a pose."""
    try:
        with tempfile.TemporaryDirectory(prefix="sfm-match-") as folder:
            model.write_binary(folder)
            return _read((Path(folder) / "images.bin").read_bytes())
    except (OSError, RuntimeError, ValueError, struct.error):  # no file can be opened, or the disk is full
        return {number: _one_by_one(image) for number, image in model.images.items() if image.has_pose}


def _read(content: bytes) -> dict[int, Observations]:
    """Of images.bin. Raises as `walk`."""
    found: dict[int, Observations] = {}

    def take(content: bytes, place: int) -> int:
        number, begin, count = keypoints_of(content, place)
        keypoints = np.frombuffer(content, _KEYPOINT, count, begin)
        seen = keypoints[keypoints["point3D_id"] != _NO_POINT]
        found[number] = Observations(seen["point3D_id"].copy(), seen["xy"].copy())
        return begin + keypoints.nbytes

    walk(content, take)
    return found


def _one_by_one(image: "pycolmap.Image") -> Observations:
    seen = image.get_observation_points2D()
    points = np.array([one.point3D_id for one in seen], np.int64)
    return Observations(points, np.array([one.xy for one in seen], np.float64).reshape(-1, 2))
