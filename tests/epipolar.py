"""How far matches are from the lines that the rendered scene's true cameras give."""

import numpy as np

from sfm_match.commands.scene import cameras, intrinsics


def epipolar_distance(a: np.ndarray, b: np.ndarray, first: int, second: int) -> np.ndarray:
    """Pixels of B from the lines that A's points have in it, by the true cameras."""
    views = cameras(16)
    rotation = views[second].rotation @ views[first].rotation.T
    x, y, z = views[second].rotation @ (views[first].centre - views[second].centre)
    inverse = np.linalg.inv(intrinsics())
    fundamental = inverse.T @ np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation @ inverse
    lines = np.c_[a, np.ones(len(a))] @ fundamental.T
    return np.abs((np.c_[b, np.ones(len(b))] * lines).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1)
