import numpy as np
import pytest

from sfm_match.geometry import align

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
