"""Equirectangular panoramas as the six faces of a cube: pinhole pictures, which features and mappers are made for.

A face spans 90 degrees both ways. Its side is the panorama's width over pi, at which a pixel in its middle is as large
as one of the panorama.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Lookup = tuple[NDArray[np.float32], NDArray[np.float32]]  # x and y, as `cv2.remap` takes them
# Rows: the axes of a face's camera (right, down, forward) in those of the front one. That is cam_from_rig.
FACES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "front": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "right": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "back": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "left": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "up": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "down": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


def is_panorama(width: int, height: int) -> bool:
    """Whether a picture has the shape of a whole equirectangular panorama: twice as wide as high."""
    return width == 2 * height


@dataclass(frozen=True)
class Cube:
    """The faces of panoramas of one size."""

    width: int  # of the panorama, pixels

    @property
    def side(self) -> int:
        """Of a face, pixels."""
        return round(self.width / np.pi / 2) * 2

    @property
    def focal(self) -> float:
        """Pixels; the principal point is in the middle."""
        return self.side / 2

    def lookup(self, face: str) -> Lookup:
        """(S, S) x and (S, S) y in the panorama of each pixel of a face, as `cv2.remap` takes them.

        Pixels as in `images.coordinates`: the left edge of the panorama looks backward, its middle to the front, its
        top up.
        """
        offsets = (np.arange(self.side) + 0.5 - self.focal) / self.focal
        x, y = np.meshgrid(offsets, offsets)
        rays = np.stack((x, y, np.ones_like(x)), axis=-1) @ np.array(FACES[face], np.float64)  # (S, S, 3) of the front
        longitude = np.arctan2(rays[..., 0], rays[..., 2])
        latitude = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
        across = (longitude / (2 * np.pi) + 0.5) * self.width - 0.5
        down = (latitude / np.pi + 0.5) * (self.width / 2) - 0.5
        return across.astype(np.float32), down.astype(np.float32)


def cut(panorama: NDArray[np.uint8], lookup: Lookup) -> NDArray[np.uint8]:
    """(S, S, C) of a face, by its `Cube.lookup`, from a panorama (W / 2, W, C), whose left and right edges meet."""
    return np.asarray(cv2.remap(panorama, *lookup, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP), np.uint8)
