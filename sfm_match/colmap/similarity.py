"""Similarity alignment of point sets."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STARTS, _STEPS = 50, 3  # of the robust fit


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


def fit_robustly(source: Floats, target: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The similarity of least trimmed squares (Rousseeuw & Van Driessen, "Computing LTS regression", 1999).

    From many starts, the half of the points that fits best is fitted again; then all near the best of these fits are.

    Args:
        source: (N, 3), N >= 3.
        target: (N, 3).

    Returns:
        (N, 3) `source` as the similarity moves it, and (N,) which points it was fitted to.
    """
    rng = np.random.default_rng(0)
    number = len(source)
    half = min(number, number // 2 + 2)

    def step(rows: NDArray[Any]) -> tuple[float, NDArray[Any], Floats]:
        errors = np.linalg.norm(_fit(source, target, rows) - target, axis=1)
        nearest = np.argpartition(errors, half - 1)[:half]
        return float((errors[nearest] ** 2).sum()), nearest, errors

    best = step(np.arange(number))
    for _ in range(_STARTS):
        found = step(rng.choice(number, 3, replace=False))
        for _ in range(_STEPS):
            found = step(found[1])
        best = min(best, found, key=lambda one: one[0])
    held = best[2] <= 3 * np.median(best[2]) + 1e-9  # of normal errors, all but a few in a thousand
    return _fit(source, target, np.flatnonzero(held)), held


def _fit(source: Floats, target: Floats, rows: NDArray[Any]) -> Floats:
    """(N, 3) `source`, moved by the similarity that fits some rows."""
    try:
        return align(source[rows], target[rows]).apply(source)
    except cv2.error:  # points on a line, whose similarity is a linear regression along it
        middle = source[rows].mean(axis=0)
        along = (source - middle) @ np.linalg.svd(source[rows] - middle)[2][0]
        goal = target[rows].mean(axis=0)
        slope = np.linalg.lstsq(along[rows, None], target[rows] - goal, rcond=None)[0]  # (1, 3)
        return np.asarray(goal + along[:, None] * slope, np.float64)
