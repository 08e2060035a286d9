"""The compiled pass over E against double precision, with every kernel that this processor can run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.compiled import kernels
from sfm_match.matching.compiled_sweep import sweep

pytestmark = pytest.mark.skipif(not kernels(), reason="nothing was compiled: no GCC or Clang at installation")
KERNELS = sorted(kernels().values())


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    raw = rng.normal(size=(count, dimension))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.sampled_from(KERNELS),
    st.integers(1, 300),
    st.integers(1, 700),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([0.5, 20.0, 40.0]),
    st.sampled_from([1e-6, 0.001, 0.05, 0.3]),
    st.integers(0, 10**6),
)
def test_sums_and_candidates(kernel: int, n: int, m: int, dimension: int, t: float, least: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = unit(rng, n, dimension), unit(rng, m, dimension)
    b[: min(n, m) // 2] = a[: min(n, m) // 2]
    e = np.exp(t * a.astype(np.float64) @ b.astype(np.float64).T)
    row_sums, column_sums, rows, columns, found = sweep(kernel, a, b, t, least)
    # a product of components that are rounded to a step of 1/32000, by Cauchy and Schwarz
    rounded = 2e-5 + np.expm1(t * np.sqrt(dimension) / 32000)
    np.testing.assert_allclose(row_sums, e.sum(axis=1), rtol=rounded)
    np.testing.assert_allclose(column_sums, e.sum(axis=0), rtol=rounded)
    np.testing.assert_allclose(found, e[rows, columns], rtol=2e-5)
    places = rows.astype(np.int64) * m + columns
    assert (np.diff(places) > 0).all()
    share = (e / e.sum(axis=1, keepdims=True)).ravel()
    assert np.isin(np.flatnonzero(share > least * (1.0001 + 2 * rounded)), places).all()
    assert (share[places] > least * (0.9999 - 2 * rounded)).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dimension", [64, 256])
def test_probabilities_are_finer_than_those_stored(kernel: int, dimension: int) -> None:
    """What a row is made of is taken as it is, so that the rounding of the rest hardly shows: float16 has 5e-4."""
    rng = np.random.default_rng(dimension)
    a = unit(rng, 2000, dimension)
    b = a + rng.normal(0, 0.1, a.shape).astype(np.float32)
    b = (b / np.linalg.norm(b, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    e = np.exp(20.0 * a.astype(np.float64) @ b.astype(np.float64).T)
    row_sums, column_sums, rows, columns, found = sweep(kernel, a, b, 20.0, 0.05)
    expected = (e**2 / e.sum(axis=0) / e.sum(axis=1, keepdims=True))[rows, columns]
    likely = expected > 0.1
    assert likely.sum() > 1500
    np.testing.assert_allclose((found**2 / row_sums[rows] / column_sums[columns])[likely], expected[likely], rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_of_a_row_may_be_candidates(kernel: int) -> None:
    """20 that are alike have a twentieth each, on either side of the bar by rounding: there is room for them."""
    same = np.tile(unit(np.random.default_rng(0), 1, 64), (100, 1))
    assert len(sweep(kernel, same, same[:20], 20.0, 0.05)[2]) <= 2000
    assert len(sweep(kernel, same, same[:20], 20.0, 0.0499)[2]) == 2000


@pytest.mark.parametrize("kernel", KERNELS)
def test_takes_views(kernel: int) -> None:
    rng = np.random.default_rng(0)
    wide = unit(rng, 40, 32)
    slices = sweep(kernel, wide[::2, 8:16], wide[:, 16:24], 20.0, 0.01)
    copies = sweep(kernel, wide[::2, 8:16].copy(), wide[:, 16:24].copy(), 20.0, 0.01)
    for one, other in zip(slices, copies, strict=True):
        np.testing.assert_array_equal(one, other)
