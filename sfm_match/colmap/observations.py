"""What the images of a model observe, as arrays.

pycolmap makes an object of each keypoint: 0.2 s for 50,000. In COLMAP's own file they are one after another.
"""

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pycolmap

# of images.bin (COLMAP's documentation, "Binary File Format"): image_id, quaternion, translation, camera_id; the name
# with a zero at its end; how many keypoints it has, and these
_HEAD = struct.Struct("<I7dI")
_COUNT = struct.Struct("<Q")
_KEYPOINT = np.dtype([("xy", "<f8", 2), ("point3D_id", "<i8")])
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
            return dict(_read((Path(folder) / "images.bin").read_bytes()))
    except (OSError, RuntimeError, ValueError, struct.error):  # no file can be opened, or the disk is full
        return {number: _one_by_one(image) for number, image in model.images.items() if image.has_pose}


def _read(content: bytes) -> Iterator[tuple[int, Observations]]:
    """Of images.bin."""
    (images,), at = _COUNT.unpack_from(content), _COUNT.size
    for _ in range(images):
        number, *_ = _HEAD.unpack_from(content, at)
        at = content.index(b"\0", at + _HEAD.size) + 1
        (count,) = _COUNT.unpack_from(content, at)
        at += _COUNT.size
        keypoints = np.frombuffer(content, _KEYPOINT, count, at)
        at += keypoints.nbytes
        seen = keypoints[keypoints["point3D_id"] != _NO_POINT]
        yield number, Observations(seen["point3D_id"].copy(), seen["xy"].copy())


def _one_by_one(image: "pycolmap.Image") -> Observations:
    seen = image.get_observation_points2D()
    points = np.array([one.point3D_id for one in seen], np.int64)
    return Observations(points, np.array([one.xy for one in seen], np.float64).reshape(-1, 2))
