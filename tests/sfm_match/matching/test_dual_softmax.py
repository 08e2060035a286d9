"""The blocked matcher against two softmaxes in double precision: compiled and with numpy."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.compiled import kernels
from sfm_match.matching import dual_softmax
from sfm_match.matching.dual_softmax import match_descriptors, match_rotated

COMPILED = [*kernels().values(), None]  # each as if it were the only one; None: numpy


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    raw = rng.normal(size=(count, dimension))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def reference(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """softmax over rows times softmax over columns: (N, M) probabilities."""
    similarity = t * a.astype(np.float64) @ b.T.astype(np.float64)
    e = np.exp(similarity - similarity.max())
    return e / e.sum(axis=0) * e / e.sum(axis=1, keepdims=True)


def mutual(p: np.ndarray, threshold: float, lead: float) -> set[tuple[int, int]]:
    """What is `lead` times more than the rest of its row and of its column, and than the threshold."""
    rest = np.full(p.shape, threshold)
    for axis in (0, 1):
        ordered = np.sort(np.concatenate((p, np.zeros_like(p.take([0], axis))), axis), axis)
        second, best = ordered.take([-2], axis), ordered.take([-1], axis)
        rest = np.maximum(rest, np.where(p == best, second, best))
    return {(int(i), int(j)) for i, j in np.argwhere(p > lead * rest)}


def noisy_copy(rng: np.random.Generator, a: np.ndarray, noise: float) -> np.ndarray:
    b = a + rng.normal(0, noise, a.shape)
    return (b / np.linalg.norm(b, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.sampled_from(COMPILED),
    st.integers(1, 1300),
    st.integers(1, 700),
    st.sampled_from([8, 64]),
    st.sampled_from([0.01, 0.1, 0.5]),
    st.integers(0, 10**6),
)
def test_equals_the_two_softmax_reference(
    compiled: int | None, n: int, m: int, dimension: int, threshold: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a = unit(rng, n, dimension)
    b = np.concatenate((noisy_copy(rng, a, 0.06)[rng.permutation(n)], unit(rng, m, dimension)))[:m]
    with patch.object(dual_softmax, "fastest", lambda: compiled):
        found = match_descriptors(a, b, threshold)
    p = reference(a, b, 20.0)
    pairs = {(int(i), int(j)) for i, j in found.indices}
    # what is as good as another, or as the threshold, within rounding may fall on either side
    assert mutual(p, threshold, 1.001) <= pairs <= mutual(p, threshold, 0.999)
    for (i, j), score in zip(found.indices.tolist(), found.scores, strict=True):
        assert score == pytest.approx(p[i, j], rel=2e-3, abs=1e-4)


def test_order_and_types() -> None:
    rng = np.random.default_rng(0)
    a = unit(rng, 900, 64)
    found = match_descriptors(a, a[::-1].copy(), 0.1)
    assert found.indices.dtype == np.uint32
    assert found.scores.dtype == np.float16
    assert len(found.indices) == 900
    assert (np.diff(found.indices[:, 0].astype(int)) > 0).all()
    assert (found.indices.sum(axis=1) == 899).all()


def test_symmetric() -> None:
    rng = np.random.default_rng(1)
    a = unit(rng, 700, 64)
    b = noisy_copy(rng, a, 0.08)
    there, back = match_descriptors(a, b, 0.1), match_descriptors(b, a, 0.1)
    assert {(int(i), int(j)) for i, j in there.indices} == {(int(j), int(i)) for i, j in back.indices}


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_matches_nothing(n: int, m: int) -> None:
    found = match_descriptors(np.empty((n, 8), np.float32), np.empty((m, 8), np.float32), 0.1)
    assert found.indices.shape == (0, 2)


@pytest.mark.parametrize("compiled", COMPILED)
def test_highest_temperature_does_not_underflow(compiled: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_softmax, "fastest", lambda: compiled)
    a = np.eye(4, dtype=np.float32)
    found = match_descriptors(a, np.concatenate((a, -a)), 0.5, inverse_temperature=40.0)
    assert len(found.indices) == 4


@pytest.mark.parametrize("turn", range(4))
def test_of_several_turns_the_one_that_fits(turn: int) -> None:
    rng = np.random.default_rng(turn)
    a, b = (rng.normal(size=(700, 4, 16)).astype(np.float32) for _ in range(2))
    b[:, turn] = a[:, 0] + 0.3 * rng.normal(size=(700, 16))
    a, b = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in (a, b))
    found = match_rotated(a.reshape(700, -1), b.reshape(700, -1), 4, 0.1)
    expected = match_descriptors(a[:, 0], b[:, turn], 0.1)
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert len(found.indices) > 400
    assert not len(match_rotated(a[:0].reshape(0, 64), b.reshape(700, -1), 4, 0.1).indices)
