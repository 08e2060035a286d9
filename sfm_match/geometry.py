"""Similarity alignment of point sets."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation."""

    scale: float
    rotation: Floats  # (3, 3)
    translation: Floats  # (3,)

    def apply(self, points: Floats) -> Floats:
        """(N, 3) -> (N, 3)."""
        return self.scale * points @ self.rotation.T + self.translation


def align(source: Floats, target: Floats) -> Similarity:
    """The least-squares similarity from `source` to `target`, (N, 3) each, N >= 3 (Umeyama, PAMI 1991).

    OpenCV's implementation, because pycolmap's `estimate_sim3d` gives up on points in one plane, and cameras on a
    tripod or a drone's grid are just that.
    """
    matrix, scale = cv2.estimateAffine3D(source, target, force_rotation=True)
    affine = np.asarray(matrix, np.float64)
    return Similarity(float(scale), affine[:, :3], affine[:, 3])
