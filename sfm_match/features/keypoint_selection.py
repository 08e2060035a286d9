"""From a detector's logits to keypoints."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.graph_constants import CONTRAST_RADIUS

ENOUGH = 1024  # keypoints that hold an image
_WINDOW = 2  # pixels each way of the soft-argmax
_DENSITY = np.exp(-(np.linspace(-2, 2, 51, dtype=np.float32) ** 2))  # the published kernel of the coverage weighting


@dataclass(frozen=True)
class Selection:
    """How keypoints are chosen."""

    max_keypoints: int
    threshold: float  # probability
    border: int  # network pixels
    nms_radius: int  # network pixels
    subpixel: bool
    coverage: bool = False  # rank by probability over the square root of its density (DeDoDe's `increase_coverage`)
    pixels_per_keypoint: int = 0  # network pixels, half as many in images too small for `ENOUGH`; 0: no limit
    least_contrast: float = 0.0  # of a logit over the lowest within `CONTRAST_RADIUS`; 0: no limit
    logits: bool = False  # scores are logits, which can be compared between tiles; their probabilities cannot

    def most(self, size: tuple[int, int]) -> int:
        """Keypoints of an image of this (width, height), network pixels without padding."""
        if not self.pixels_per_keypoint:
            return self.max_keypoints
        pixels = size[0] * size[1]
        dense = min(ENOUGH, 2 * pixels // self.pixels_per_keypoint)
        return min(self.max_keypoints, max(dense, pixels // self.pixels_per_keypoint))


def select_keypoints(
    logits: NDArray[np.float32], size: tuple[int, int], how: Selection, mask: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The strongest local maxima of the detector.

    Args:
        logits: (H, W) of one padded image.
        size: (width, height) without padding; nothing beyond takes part, in the softmax neither.
        how: limits.
        mask: (height, width), 0 where no keypoint is wanted.

    Returns:
        (N, 2) x, y in network pixels, the centre of the top-left pixel at (0.5, 0.5), and (N,) scores, descending:
        probabilities, with `coverage` over the square root of their density; with `logits`, the logarithms of these
        without the softmax's denominator.
    """
    width, height = size
    inside = np.ascontiguousarray(logits[:height, :width])
    peak = float(inside.max())
    log_total = peak + float(np.log(np.exp(inside - peak).sum(dtype=np.float64)))

    if how.nms_radius:
        kernel = np.ones((2 * how.nms_radius + 1,) * 2, np.uint8)
        allowed = cv2.dilate(inside, kernel) == inside
    else:
        allowed = np.ones(inside.shape, bool)
    edge = how.border
    if edge:
        allowed[:edge] = allowed[-edge:] = False
        allowed[:, :edge] = allowed[:, -edge:] = False
    if mask is not None:
        allowed &= mask > 0
    if how.threshold > 0:
        allowed &= inside > log_total + np.log(how.threshold)
    if how.least_contrast > 0:
        around = np.ones((2 * CONTRAST_RADIUS + 1,) * 2, np.uint8)
        allowed &= inside - cv2.erode(inside, around) >= how.least_contrast

    # the rank of a pixel is a logarithm, as the logits are: probabilities of 1e-30 still differ
    rank = inside - 0.5 * np.log(_density(np.exp(inside - log_total))) if how.coverage else inside
    found = np.flatnonzero(allowed)
    strength = rank.ravel()[found]
    most = how.most(size)
    if len(found) > most:
        strongest = np.argpartition(-strength, most - 1)[:most] if most else np.empty(0, np.int64)
        found, strength = found[strongest], strength[strongest]
    order = np.lexsort((found, -strength))  # ties by place, so that the result is the same everywhere
    rows, columns = np.divmod(found[order], width)
    points = np.stack((columns + 0.5, rows + 0.5), axis=1).astype(np.float32)
    if how.subpixel:
        refined = points + _soft_argmax(inside, rows, columns)
        ends = np.array((width, height), np.float32) - edge
        stays = ((refined >= edge) & (refined <= ends)).all(axis=1)
        if mask is not None:
            seen = np.minimum(refined.clip(0).astype(np.int64), (width - 1, height - 1))
            stays &= mask[seen[:, 1], seen[:, 0]] > 0
        points[stays] = refined[stays]  # one that would leave the valid area stays at its pixel
    if how.logits:
        # the density is of probabilities: its square root holds half of the denominator's logarithm
        return points, (strength[order] - (0.5 * log_total if how.coverage else 0.0)).astype(np.float32)
    return points, np.exp(strength[order] - log_total).astype(np.float32)


def _density(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) smoothed over 51 x 51 pixels, as `exports.keypoints.weight_by_coverage` has it; nothing lies outside."""
    scaled = (probability + np.float32(1e-6)) * np.float32(10000)
    smooth = cv2.sepFilter2D(scaled, cv2.CV_32F, _DENSITY, _DENSITY, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(smooth + np.float32(1e-8), np.float32)


def _soft_argmax(
    logits: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(N, 2) expected offset from each maximum under the softmax of its 5 x 5 window."""
    steps = np.arange(-_WINDOW, _WINDOW + 1)
    height, width = logits.shape
    # the window is cut at the image's edge: what lies beyond has no weight
    y, x = rows[:, None] + steps, columns[:, None] + steps  # (N, 5)
    outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
    window = logits[y.clip(0, height - 1)[:, :, None], x.clip(0, width - 1)[:, None, :]]  # (N, 5, 5)
    weight = np.where(outside, 0.0, np.exp(window - logits[rows, columns][:, None, None]))
    total = weight.sum(axis=(1, 2))
    dx = (weight.sum(axis=1) * steps).sum(axis=1) / total
    dy = (weight.sum(axis=2) * steps).sum(axis=1) / total
    return np.stack((dx, dy), axis=1).astype(np.float32)
