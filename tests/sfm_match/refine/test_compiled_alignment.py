"""What was compiled against numpy and OpenCV, with every kernel that this processor can run."""

from dataclasses import replace
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.compiled import kernels
from sfm_match.refine import patch_alignment
from sfm_match.refine.compiled_alignment import Limits, fit, local_affines
from sfm_match.refine.patch_alignment import _COARSE, _FINE, _SMOOTHNESS, _fit, _weights, neighbours

pytestmark = pytest.mark.skipif(not kernels(), reason="nothing was compiled: no GCC or Clang at installation")
KERNELS = sorted(kernels().values())
# OpenCV 4 rounds the places where it reads an image to 1/32 pixel: numpy's steps are off by that, the kernels' are not.
ROUNDED = 0.1 if int(cv2.__version__.split(".")[0]) < 5 else 0.0
SIDES = st.one_of(st.integers(25, 90), st.integers(1, 24))
SIZES = st.tuples(SIDES, SIDES)  # (height, width)


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) float32 grey values in which there is something to fit."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
        for length, angle, phase in zip(
            rng.uniform(5, 40, 12), rng.uniform(0, np.pi, 12), rng.uniform(0, 6, 12), strict=True
        )
    ]
    return (128 + 10 * np.sum(waves, axis=0)).round().astype(np.float32)  # nowhere flat


@given(
    st.sampled_from(KERNELS),
    st.sampled_from([_COARSE, _FINE]),
    SIZES,
    SIZES,
    st.integers(1, 40),
    st.integers(0, 10**6),
)
def test_patches_fit_as_with_numpy(
    kernel: int, limits: Limits, a: tuple[int, int], b: tuple[int, int], count: int, seed: int
) -> None:
    """Images of any size, points on their edges and beyond: one step, which is not yet led astray by rounding.

    Half of the points are where the patches of both images are whole.
    """
    rng = np.random.default_rng(seed)
    image_a, image_b = smooth(rng, *a), smooth(rng, *b)
    first, second = (
        np.where(
            np.arange(count)[:, None] % 2,
            rng.uniform(-20, 20 + np.array(shape[::-1]), (count, 2)),
            rng.uniform(8.1, np.maximum(np.array(shape[::-1]) - 9.1, 8.2), (count, 2)),
        ).astype(np.float32)
        for shape in (a, b)
    )
    affines = (np.eye(2) + rng.uniform(-0.3, 0.3, (count, 2, 2))).astype(np.float32)
    once = replace(limits, iterations=1, farthest=1.0, settled=1.0, least_correlation=0.1)
    expected, believed = _fit(image_a, image_b, first, second, affines, once)
    found, fits = fit(kernel, image_a, image_b, first, second, affines, _weights(), once)
    assert (np.abs(found) < 1.001).all()
    # beyond the edges patches are flat, at least one way: the steps are long there, and of rounding
    told = np.ones(count, bool)
    for points, shape in ((first, a), (second, b)):
        told &= ((points > 8) & (points < np.array(shape[::-1]) - 9)).all(axis=1)
    np.testing.assert_allclose(found[told], expected[told], atol=0.01 + ROUNDED)
    assert ROUNDED or (fits[told] == believed[told]).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("limits", [_COARSE, _FINE], ids=["coarse", "fine"])
def test_points_go_where_they_go_with_numpy(kernel: int, limits: Limits) -> None:
    rng = np.random.default_rng(4)
    image = smooth(rng, 200, 300)
    first = rng.uniform((0, 0), (299, 199), (500, 2)).astype(np.float32)
    second = first + rng.normal(0, 0.6, first.shape).astype(np.float32)
    affines = np.tile(np.eye(2, dtype=np.float32), (500, 1, 1))
    expected, believed = _fit(image, image, first, second, affines, limits)
    found, fits = fit(kernel, image, image, first, second, affines, _weights(), limits)
    assert (fits == believed).mean() > (0.9 if ROUNDED else 0.999)
    assert fits.mean() > 0.8
    both = fits & believed
    np.testing.assert_allclose(found[both], expected[both], atol=1e-3 + ROUNDED)
    np.testing.assert_allclose(second[fits] + found[fits], first[fits], atol=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_no_number_fits_nowhere(kernel: int) -> None:
    image = smooth(np.random.default_rng(0), 40, 40)
    places = np.array([[np.nan, 3], [np.inf, 3], [-np.inf, 3], [1e30, -1e30], [20, 20]], np.float32)
    affines = np.tile(np.eye(2, dtype=np.float32), (5, 1, 1))
    fits = fit(kernel, image, image, places, places, affines, _weights(), _FINE)[1]
    assert fits.tolist() == [False, False, False, False, True]
    affines[4] = 0
    assert not fit(kernel, image, image, places, places, affines, _weights(), _FINE)[1].any()


@given(st.sampled_from(KERNELS), st.integers(1, 60), st.integers(0, 10**6))
def test_affine_maps_as_with_numpy(kernel: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 500, (count, 2)).astype(np.float32)
    turn = np.eye(2) * rng.uniform(0.3, 2.6) + rng.uniform(-0.3, 0.3, (2, 2))
    second = (first @ turn.T + rng.normal(0, 3, first.shape)).astype(np.float32)
    near, rows = neighbours(first), rng.permutation(count)[: count // 2 + 1]
    with patch.object(patch_alignment, "fastest", lambda: None):
        expected = patch_alignment.local_affines(first, second, near[rows], rows)
    found = local_affines(kernel, first, second, near[rows], rows, _SMOOTHNESS)
    alike = np.isclose(found, expected, atol=1e-3).all(axis=(1, 2))
    # a map at the very limit of what is believed may be the identity for one of them
    assert (alike | (found == np.eye(2)).all(axis=(1, 2)) | (expected == np.eye(2)).all(axis=(1, 2))).all()
    assert alike.mean() > 0.9


@pytest.mark.parametrize("kernel", KERNELS)
def test_matches_that_are_none_tell_nothing(kernel: int) -> None:
    """A search among points that are no numbers may find -1."""
    first = np.random.default_rng(0).uniform(0, 50, (9, 2)).astype(np.float32)
    near, rows = neighbours(first), np.arange(9)
    expected = local_affines(kernel, first, 1.2 * first, near[:, :4], rows, _SMOOTHNESS)
    near[:, 4:] = -1
    near[:, -1] = 9
    np.testing.assert_array_equal(local_affines(kernel, first, 1.2 * first, near, rows, _SMOOTHNESS), expected)
    with patch.object(patch_alignment, "fastest", lambda: None):
        told = patch_alignment.local_affines(first, 1.2 * first, near, rows)
    np.testing.assert_allclose(told, expected, atol=1e-5)


@pytest.mark.parametrize("way", [*KERNELS, None])
def test_points_that_are_no_numbers_have_the_identity(way: int | None) -> None:
    first = np.random.default_rng(0).uniform(0, 50, (20, 2)).astype(np.float32)
    first[3] = np.nan
    with patch.object(patch_alignment, "fastest", lambda: way):
        maps = patch_alignment.local_affines(first, first + 1, neighbours(first), np.arange(20))
    np.testing.assert_array_equal(maps[3], np.eye(2))
    assert np.isfinite(maps).all()


def test_more_neighbours_than_there_is_room_for() -> None:
    near, points = np.zeros((1, 17), np.int64), np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="17 neighbours"):
        local_affines(KERNELS[0], points, points, near, np.zeros(1, np.int64), _SMOOTHNESS)
