"""The geometry of two images from their matches: PoseLib's estimators under COLMAP's rules.

PoseLib (Larsson et al., BSD-3) refines what it finds on the way. Half of COLMAP's samples give as many accepted pairs
(lund: 206, COLMAP 205) with 1 % more inliers, in a quarter to a half of the time.

Which of the matrices explains a pair is decided as in COLMAP's `EstimateTwoViewGeometry`, with its thresholds.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import poselib
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pycolmap

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Rows = slice | NDArray[np.int64]

LEAST_INLIERS = 15  # COLMAP's min_num_inliers
MAX_ERROR = 4.0  # pixels of the raw image
_CONFIDENCE = 0.999
_SAMPLES = 5000  # at most; of lund's pairs 2000 lose 9, 10,000 win none
_FEWEST_SAMPLES = 20
_ESTIMATED = 500  # matches, the strongest: PoseLib's time grows with them, and 5 of 56,131 inliers are gained with 1000
_SEED = 0  # the same matches give the same geometry
_LEAST_E_OF_F = 0.95  # inliers of the essential matrix over those of the fundamental one: the focal lengths are right
_MOST_H_OF_OTHERS = 0.8  # a homography with more inliers than that says as much
_WATERMARK_BORDER, _LEAST_IN_BORDER = 0.1, 0.7  # of the diagonal; of the inliers


class Configuration(IntEnum):
    """COLMAP's `TwoViewGeometry::ConfigurationType`."""

    CALIBRATED = 2
    UNCALIBRATED = 3
    PLANAR_OR_PANORAMIC = 6
    WATERMARK = 7


@dataclass(frozen=True)
class TwoView:
    """The geometry of a pair. Pixels are raw ones, the centre of the top-left one at (0.5, 0.5)."""

    configuration: Configuration
    inliers: Mask  # (M,) of the matches
    f: Floats | None = None  # (3, 3): x_b^T F x_a = 0, pixels
    e: Floats | None = None  # (3, 3): the same in normalised coordinates
    h: Floats | None = None  # (3, 3): x_b ~ H x_a, pixels


@dataclass(frozen=True)
class _Found:
    matrix: Floats
    inliers: Mask

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


def estimate_two_view(
    points_a: Floats,
    points_b: Floats,
    camera_a: "pycolmap.Camera",
    camera_b: "pycolmap.Camera",
    scores: NDArray[np.floating] | None = None,
) -> TwoView | None:
    """What moves the matched points of one image to the other; None where no geometry has `LEAST_INLIERS`.

    Args:
        points_a, points_b: (M, 2) matched points, row by row, raw pixels.
        camera_a, camera_b: with `has_prior_focal_length` where the focal length is known.
        scores: (M,) of the matches: of many, the matrices are estimated on the strongest, and all are tried on them.
    """
    if len(points_a) < LEAST_INLIERS:
        return None
    known = camera_a.has_prior_focal_length and camera_b.has_prior_focal_length
    strong: _Rows = slice(None)
    if scores is not None and len(scores) > _ESTIMATED:
        strong = np.argsort(-scores.astype(np.float32), kind="stable")[:_ESTIMATED]
    e = _essential(points_a, points_b, camera_a, camera_b, strong) if known else None
    f = _fundamental(points_a, points_b, strong)
    # a homography matters where it has nearly as many inliers
    share = max(one.count for one in (e, f) if one is not None) / len(points_a)
    h = _homography(points_a, points_b, _samples(_MOST_H_OF_OTHERS * share, 4), strong)
    found = _decided(e, f, h)
    if found is not None and _watermark(found.inliers, points_a, points_b, camera_a, camera_b):
        return TwoView(Configuration.WATERMARK, found.inliers)
    return found


def _decided(e: _Found | None, f: _Found, h: _Found) -> TwoView | None:
    """COLMAP's choice between the matrices."""
    if e is not None and e.count >= LEAST_INLIERS and e.count > _LEAST_E_OF_F * f.count:
        best, configuration = e if e.count >= f.count else f, Configuration.CALIBRATED
        over = e.count
    elif f.count >= LEAST_INLIERS:
        best, configuration, over = f, Configuration.UNCALIBRATED, f.count
    elif h.count >= LEAST_INLIERS:
        best, configuration, over = h, Configuration.PLANAR_OR_PANORAMIC, h.count
    else:
        return None
    if h.count > _MOST_H_OF_OTHERS * over:
        configuration = Configuration.PLANAR_OR_PANORAMIC
        best = h if h.count > best.count else best
    return TwoView(configuration, best.inliers, f.matrix, None if e is None else e.matrix, h.matrix)


def _samples(share: float, size: int) -> int:
    """How many samples find one without outliers, where a share of the matches are inliers."""
    good = min(share, 0.99) ** size
    return int(min(max(math.log(1 - _CONFIDENCE) / math.log1p(-good), _FEWEST_SAMPLES), _SAMPLES)) if good else _SAMPLES


def _options(error: str, samples: int) -> dict[str, Any]:
    return {
        error: MAX_ERROR,
        "success_prob": _CONFIDENCE,
        "dyn_num_trials_mult": 1.0,  # as many samples as the confidence asks for, not three times as many
        "min_iterations": _FEWEST_SAMPLES,
        "max_iterations": samples,
        "seed": _SEED,
    }


def _fundamental(points_a: Floats, points_b: Floats, strong: _Rows) -> _Found:
    matrix, _ = poselib.estimate_fundamental(
        points_a[strong], points_b[strong], _options("max_epipolar_error", _SAMPLES), {}
    )
    return _Found(np.asarray(matrix, np.float64), _sampson(matrix, points_a, points_b) <= MAX_ERROR)


def _homography(points_a: Floats, points_b: Floats, samples: int, strong: _Rows) -> _Found:
    matrix, _ = poselib.estimate_homography(
        points_a[strong], points_b[strong], _options("max_reproj_error", samples), {}
    )
    h = np.asarray(matrix, np.float64)
    return _Found(h, np.linalg.norm(transferred(h, points_a) - points_b, axis=1) <= MAX_ERROR)


def _essential(
    points_a: Floats, points_b: Floats, camera_a: "pycolmap.Camera", camera_b: "pycolmap.Camera", strong: _Rows
) -> _Found:
    """Of rays free of distortion; points without a ray are outliers."""
    sides, cameras, focals = [], [], []
    for points, camera in ((points_a, camera_a), (points_b, camera_b)):
        focal = camera.mean_focal_length()
        sides.append(rays(camera, points))
        focals.append(focal)
        cameras.append({"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]})
    whole: Mask = np.asarray(np.isfinite(np.hstack(sides)).all(axis=1), bool)
    tried = np.arange(len(whole))[strong]
    tried = tried[whole[tried]]
    if len(tried) < LEAST_INLIERS:
        return _Found(np.zeros((3, 3)), np.zeros(len(whole), bool))
    first, second = (side[tried] * focal for side, focal in zip(sides, focals, strict=True))
    pose, _ = poselib.estimate_relative_pose(first, second, *cameras, _options("max_epipolar_error", _SAMPLES), {})
    x, y, z = pose.t
    matrix = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose.R
    pixels = 2 / (1 / focals[0] + 1 / focals[1])  # of a ray's unit, as PoseLib and COLMAP have it
    return _Found(matrix, _sampson(matrix, *sides) * pixels <= MAX_ERROR)


def _sampson(matrix: Floats, points_a: Floats, points_b: Floats) -> Floats:
    """(M,) Sampson's distance of matches from x_b^T F x_a = 0 (Hartley & Zisserman, 11.4.3); NaN stays NaN."""
    a, b = (np.c_[points, np.ones(len(points))] for points in (points_a, points_b))
    lines_b, lines_a = a @ matrix.T, b @ matrix
    across = (lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1)
    return np.asarray(np.abs((lines_b * b).sum(axis=1)) / np.sqrt(np.maximum(across, 1e-30)), np.float64)


def transferred(h: Floats, points: Floats) -> Floats:
    """(M, 2) where a homography (3, 3) maps points to; not finite where it maps them to infinity."""
    homogeneous = np.c_[points, np.ones(len(points))] @ h.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:], np.float64)


def rays(camera: "pycolmap.Camera", points: Floats) -> Floats:
    """(M, 2) on the plane at distance 1; NaN where the distortion has no inverse."""
    found: Any = camera.cam_from_img(points)
    return np.asarray(found, np.float64).reshape(-1, 2)


def _watermark(
    inliers: Mask, points_a: Floats, points_b: Floats, camera_a: "pycolmap.Camera", camera_b: "pycolmap.Camera"
) -> bool:
    """Whether the inliers lie along the edges and all move alike, as COLMAP asks (it fits the shift by RANSAC)."""
    along_edges = np.ones(int(inliers.sum()), bool)
    for points, camera in ((points_a, camera_a), (points_b, camera_b)):
        border = _WATERMARK_BORDER * math.hypot(camera.width, camera.height)
        x, y = points[inliers].T
        along_edges &= (x < border) | (y < border) | (x > camera.width - border) | (y > camera.height - border)
    if along_edges.mean() < _LEAST_IN_BORDER:
        return False
    shift = points_b[inliers] - points_a[inliers]
    return bool((np.linalg.norm(shift - np.median(shift, axis=0), axis=1) <= MAX_ERROR).mean() >= _LEAST_IN_BORDER)
