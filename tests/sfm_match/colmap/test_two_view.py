"""Two-view geometries against known cameras, and against COLMAP's own choice of the matrix."""

import numpy as np
import poselib
import pycolmap
import pytest

from sfm_match.colmap import two_view
from sfm_match.colmap.two_view import Configuration, TwoView, estimate_two_view

WIDTH, HEIGHT, FOCAL = 1200, 900, 1000.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
LEFT = np.zeros(3)
RIGHT = np.array([1.0, 0.1, 0.2])


def camera(focal: float = FOCAL, *, known: bool) -> pycolmap.Camera:
    made = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", focal, WIDTH, HEIGHT)
    made.has_prior_focal_length = known
    return made


def turned(degrees: float) -> np.ndarray:
    """Camera from world, about the vertical."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def matched(kind: str, outliers: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, 2) points of both images, raw pixels, and which of them are right."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform((-3, -2, 4), (3, 2, 9), (400, 3))
    if kind == "plane":
        xyz[:, 2] = 6 + 0.3 * xyz[:, 0]
    centre = LEFT if kind == "rotation" else RIGHT
    sides = []
    for rotation, at in ((np.eye(3), LEFT), (turned(4), centre)):
        seen = (xyz - at) @ rotation.T @ K.T
        sides.append(seen[:, :2] / seen[:, 2:])
    inside = np.all([((side > 0) & (side < (WIDTH, HEIGHT))).all(axis=1) for side in sides], axis=0)
    a, b = (side[inside] + rng.normal(0, 0.3, (inside.sum(), 2)) for side in sides)
    wrong = [rng.uniform((0, 0), (WIDTH, HEIGHT), (outliers, 2)) for _ in range(2)]
    right = np.arange(len(a) + outliers) < len(a)
    return np.concatenate((a, wrong[0])), np.concatenate((b, wrong[1])), right


def epipolar(found: TwoView, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of the points from their epipolar lines, pixels."""
    assert found.f is not None
    lines = np.c_[a, np.ones(len(a))] @ found.f.T
    return np.asarray(np.abs((lines * np.c_[b, np.ones(len(b))]).sum(axis=1)) / np.hypot(lines[:, 0], lines[:, 1]))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["depth", "plane", "rotation"])
def test_chooses_as_colmap_does(kind: str, known: bool) -> None:
    a, b, right = matched(kind)
    one = camera(known=known)
    found = estimate_two_view(a, b, one, one)
    every = np.repeat(np.arange(len(a), dtype=np.uint32)[:, None], 2, axis=1)
    theirs = pycolmap.estimate_two_view_geometry(one, a, one, b, every)
    assert found is not None
    assert int(found.configuration) == int(theirs.config)
    assert (found.inliers & right).sum() >= 0.98 * right.sum()
    assert (found.inliers & ~right).sum() <= 6
    assert found.inliers.sum() >= 0.98 * len(theirs.inlier_matches)


def test_matrices_are_colmaps() -> None:
    """x_b^T F x_a = 0, E in normalised coordinates, x_b ~ H x_a."""
    a, b, right = matched("depth")
    found = estimate_two_view(a, b, camera(known=True), camera(known=True))
    assert found is not None and found.e is not None
    assert np.median(epipolar(found, a[right], b[right])) < 0.5
    rotation, shift = turned(4), -turned(4) @ RIGHT
    expected = np.array([[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]]) @ rotation
    similar = abs((found.e * expected).sum()) / np.linalg.norm(found.e) / np.linalg.norm(expected)
    assert similar > 0.9999
    a, b, right = matched("plane")
    plane = estimate_two_view(a, b, camera(known=False), camera(known=False))
    assert plane is not None and plane.h is not None
    moved = np.c_[a[right], np.ones(right.sum())] @ plane.h.T
    assert np.median(np.linalg.norm(moved[:, :2] / moved[:, 2:] - b[right], axis=1)) < 1.0


def test_a_wrong_focal_length_leaves_the_fundamental_matrix() -> None:
    a, b, right = matched("depth")
    found = estimate_two_view(a, b, camera(FOCAL, known=True), camera(FOCAL / 4, known=True))
    assert found is not None and found.configuration == Configuration.UNCALIBRATED
    assert (found.inliers & right).sum() >= 0.98 * right.sum()


def test_the_same_matches_give_the_same_geometry() -> None:
    a, b, _ = matched("depth", outliers=500)
    first, again = (estimate_two_view(a, b, camera(known=True), camera(known=True)) for _ in range(2))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.inliers, again.inliers)
    np.testing.assert_array_equal(first.e, again.e)


def test_few_and_degenerate_matches() -> None:
    a, b, _ = matched("depth", outliers=0)
    one = camera(known=True)
    assert estimate_two_view(a[:14], b[:14], one, one) is None
    assert estimate_two_view(a[:0], b[:0], one, one) is None
    a, b = np.random.default_rng(0).uniform(0, 900, (2, 30, 2))
    alone = estimate_two_view(a, b, one, one)
    assert alone is None or alone.inliers.sum() < 25
    same = np.full((40, 2), 300.0)
    estimate_two_view(same, same, one, one)  # whatever it says, it comes back
    line = np.linspace(0, 800, 60)[:, None] * (1, 1)
    estimate_two_view(line, line, one, one)


def test_a_watermark_is_told() -> None:
    """Along the bottom edge, and where it was in the other image."""
    rng = np.random.default_rng(0)
    a = rng.uniform((100, HEIGHT - 60), (WIDTH - 100, HEIGHT - 10), (80, 2))
    b = a + rng.normal(0, 0.2, a.shape)
    one = camera(known=False)
    found = estimate_two_view(a, b, one, one)
    every = np.repeat(np.arange(len(a), dtype=np.uint32)[:, None], 2, axis=1)
    theirs = pycolmap.estimate_two_view_geometry(one, a, one, b, every)
    assert found is not None
    assert int(found.configuration) == int(theirs.config) == Configuration.WATERMARK


@pytest.mark.parametrize("known", [True, False])
def test_of_many_matches_the_strongest_are_estimated_and_all_are_tried(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, right = matched("depth", outliers=200)
    one = camera(known=known)
    whole = estimate_two_view(a, b, one, one)
    monkeypatch.setattr(two_view, "_ESTIMATED", 100)
    scores = np.where(right, 0.9, 0.2).astype(np.float16)
    few = estimate_two_view(a, b, one, one, scores)
    assert whole is not None and few is not None
    assert few.configuration == whole.configuration
    assert len(few.inliers) == len(a)
    assert (few.inliers & right).sum() >= 0.98 * right.sum()
    assert (few.inliers & ~right).sum() <= 10


def test_inliers_are_poselibs() -> None:
    a, b, _ = matched("depth", outliers=200)
    found = two_view._fundamental(a, b, slice(None))
    options = two_view._options("max_epipolar_error", two_view._SAMPLES)
    _, told = poselib.estimate_fundamental(a, b, options, {})
    assert (found.inliers == np.asarray(told["inliers"])).mean() > 0.995
