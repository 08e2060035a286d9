"""Patches of images whose true map is known."""

import cv2
import numpy as np
import pytest

from sfm_match.compiled import kernels
from sfm_match.images.coordinates import orient, plan_geometry
from sfm_match.refine import patch_alignment
from sfm_match.refine.patch_alignment import align, align_photographs, local_affines, neighbours, pyramid, see

WAYS = {**kernels(), "numpy": None}
TURN = np.array([[0.95, -0.15], [0.12, 0.9]], np.float32)  # second from first


def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Grey values of a texture that is known between pixels, too: waves of 6 to 60 pixels in all directions."""
    rng = np.random.default_rng(0)
    total = np.zeros(x.shape)
    for length in np.geomspace(6, 60, 40):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        total += length**0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return (128 + 7 * total).clip(0, 255)


def seen(linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(300, 400) the texture where each of its points p lies at linear p + shift."""
    y, x = np.mgrid[:300, :400].astype(float)
    x, y = np.tensordot(np.linalg.inv(linear), np.stack((x - shift[0], y - shift[1])), 1)
    return waves(x, y).round().astype(np.uint8)


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS), autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel as if it were the only one, and none."""
    monkeypatch.setattr(patch_alignment, "fastest", lambda: request.param)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return seen(np.eye(2), np.zeros(2))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """(200, 2) away from the edge."""
    return np.random.default_rng(1).uniform((100, 100), (300, 200), (200, 2)).astype(np.float32)


@pytest.mark.parametrize("linear", [np.eye(2, dtype=np.float32), TURN], ids=["shifted", "turned, shrunk, sheared"])
def test_finds_where_points_are(image: np.ndarray, points: np.ndarray, linear: np.ndarray) -> None:
    shift = np.array((20.37, -5.21), np.float32)
    other = (0.7 * seen(linear, shift) + 30).astype(np.uint8)  # another exposure
    truth = points @ linear.T + shift
    said = truth + np.random.default_rng(2).normal(0, 0.7, truth.shape).astype(np.float32)
    found = align(pyramid(image), pyramid(other), points, said)
    assert found.fits.mean() > 0.95
    error = np.linalg.norm(said + found.offsets - truth, axis=1)[found.fits]
    assert np.median(error) < 0.08 < 0.7 < np.median(np.linalg.norm(said - truth, axis=1))
    np.testing.assert_allclose(np.median(found.affines, axis=0), linear, atol=0.05)


@pytest.mark.parametrize("orientation", [1, 6])
def test_photographs_are_compared_in_the_raw_frame(image: np.ndarray, points: np.ndarray, orientation: int) -> None:
    """The second is three times as large, and lies as its EXIF says; the network would see half the first."""
    large = cv2.resize(seen(TURN, np.array((20.37, -5.21))), None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    views = []
    for picture, turned in ((image, 1), (large, orientation)):
        raw = np.repeat(picture[..., None], 3, axis=2)
        geometry = plan_geometry(raw.shape[1::-1], turned, 200, 1)
        assert orient(raw, turned).shape[1::-1] == geometry.oriented_size
        views.append(see(raw, geometry))
    first = points + np.float32(0.5)
    truth = 3 * (points @ TURN.T + np.array((20.37, -5.21), np.float32) + np.float32(0.5))
    said = truth + np.random.default_rng(2).normal(0, 3, truth.shape).astype(np.float32)
    found = align_photographs(views[0], views[1], first, said)
    error = said + found.offsets / views[1].scale - truth
    assert found.fits.mean() > 0.8
    assert np.abs(np.median(error[found.fits], axis=0)).max() < 0.15  # raw pixels, a fortieth of one at the network
    np.testing.assert_allclose(np.median(found.affines, axis=0), TURN, atol=0.05)


def test_what_does_not_fit_stays(image: np.ndarray) -> None:
    # by chance a sixth fits: of 200 points, it may be more or less
    points = np.random.default_rng(1).uniform((100, 100), (300, 200), (1000, 2)).astype(np.float32)
    found = align(pyramid(image), pyramid(image[::-1, ::-1].copy()), points, points)
    assert found.fits.mean() < 0.2
    assert not found.offsets[~found.fits].any()
    flat = align(pyramid(np.full_like(image, 90)), pyramid(image), points, points)
    assert not flat.fits.any()


def test_edges_and_few_points(image: np.ndarray) -> None:
    corners = np.array([[0, 0], [399, 0], [0, 299], [399, 299]], np.float32)
    found = align(pyramid(image), pyramid(image), corners, corners)
    assert np.isfinite(found.offsets).all()
    assert np.abs(found.offsets).max() < 0.1
    for few in (0, 1):
        found = align(pyramid(image), pyramid(image), corners[:few] + 50, corners[:few] + 50)
        assert found.offsets.shape == (few, 2)
        assert found.affines.shape == (few, 2, 2)


def test_affine_maps_mind_outliers(points: np.ndarray) -> None:
    second = points @ TURN.T + 5
    second[::10] += 25
    clean = np.arange(len(points)) % 10 != 0
    near, rows = neighbours(points), np.arange(len(points))
    assert (near == rows[:, None]).any(axis=1).all()
    found = local_affines(points, second, near, rows)
    np.testing.assert_allclose(np.median(found[clean], axis=0), TURN, atol=0.03)
    np.testing.assert_array_equal(local_affines(points, second, near[7:9], rows[7:9]), found[7:9])
    mirrored = local_affines(points, points * np.array((-1, 1), np.float32), near, rows)
    np.testing.assert_array_equal(mirrored, np.broadcast_to(np.eye(2), mirrored.shape))  # no photograph does that


def test_points_are_aligned_alike_however_many_at_once(
    image: np.ndarray, points: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = pyramid(image), pyramid(seen(TURN, np.array((20.37, -5.21))))
    said = points @ TURN.T + np.random.default_rng(3).normal((20.37, -5.21), 0.7, points.shape).astype(np.float32)
    whole = align(*levels, points, said)
    monkeypatch.setattr("sfm_match.refine.patch_alignment._AT_ONCE", 7)
    parts = align(*levels, points, said)
    np.testing.assert_array_equal(parts.fits, whole.fits)
    np.testing.assert_allclose(parts.offsets, whole.offsets, atol=0.01)
    np.testing.assert_allclose(parts.affines, whole.affines, atol=0.01)


def test_a_photograph_is_shrunk_by_area_and_grey() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    levels = see(raw, plan_geometry((640, 480), 1, 320, 1)).levels
    grey = raw.astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(levels[0] - grey.reshape(240, 2, 320, 2).mean(axis=(1, 3))).max() <= 1
    assert [level.shape for level in levels] == [(240, 320), (120, 160), (60, 80)]


def test_in_floats_is_the_same(image: np.ndarray) -> None:
    seen_once = see(np.repeat(image[..., None], 3, axis=2), plan_geometry((400, 300), 1, 400, 1))
    floats = seen_once.in_floats()
    assert {level.dtype for level in floats.levels} == {np.dtype(np.float32)}
    for level, same in zip(seen_once.levels, floats.levels, strict=True):
        np.testing.assert_array_equal(level, same)
    np.testing.assert_array_equal(seen_once.scale, floats.scale)
    assert all(one is other for one, other in zip(floats.levels, floats.in_floats().levels, strict=True))  # no copies
