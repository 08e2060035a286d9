import numpy as np
import pytest

from sfm_match.colmap.similarity import align, fit_robustly

A = np.radians(33)
ROTATION = np.array([[np.cos(A), -np.sin(A), 0], [np.sin(A), np.cos(A), 0], [0, 0, 1.0]])


@pytest.mark.parametrize("height", [0.0, 1.0])  # in one plane, and not
def test_align(height: float) -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 3)) * (1, 1, height)
    found = align(source, 2.5 * source @ ROTATION.T + (1, 2, 3))
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.rotation, ROTATION, atol=1e-9)
    np.testing.assert_allclose(found.apply(source), 2.5 * source @ ROTATION.T + (1, 2, 3), atol=1e-9)


@pytest.mark.parametrize("on_a_line", [False, True])
def test_a_robust_fit_leaves_out_what_is_far_off(on_a_line: bool) -> None:
    rng = np.random.default_rng(0)
    source = np.arange(20.0)[:, None] * (1, 2, 3) if on_a_line else rng.normal(size=(20, 3))
    target = 3 * source[:, [1, 2, 0]] + (5, 6, 7)
    wrong = np.arange(20) < 7
    target[wrong] += rng.normal(0, 100, (7, 3))
    fitted, held = fit_robustly(source, target)
    np.testing.assert_array_equal(held, ~wrong)
    np.testing.assert_allclose(fitted[held], target[held], atol=1e-4)
