"""Scores are those of the formula; the right pairs are kept."""

from itertools import combinations

import numpy as np
import pytest

from pairs import prune as module
from pairs.exhaustive import exhaustive
from pairs.prune import INVERSE_TEMPERATURE, KEYPOINTS, KeypointSubsets, above, best, relative, scored, spread


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def subsets(counts: list[int], turns: int = 1, seed: int = 0) -> KeypointSubsets:
    rng = np.random.default_rng(seed)
    descriptors = unit(rng.normal(size=(len(counts), turns, KEYPOINTS, 16))).astype(np.float16)
    for one, count in zip(descriptors, counts, strict=True):
        one[:, count:] = 0
    return KeypointSubsets(
        descriptors, rng.uniform(-0.5, 0.5, (len(counts), KEYPOINTS, 2)).astype(np.float16), np.array(counts)
    )


def reference(a: np.ndarray, b: np.ndarray, at_a: np.ndarray, at_b: np.ndarray) -> tuple[float, float]:
    """Two softmaxes, in float64: the sum of the mutual maxima; and the score, twos of matches compared one by one."""
    e = np.exp(INVERSE_TEMPERATURE * a.astype(float) @ b.astype(float).T)
    p = e / e.sum(axis=0) * e / e.sum(axis=1, keepdims=True)
    rows, columns = np.nonzero((p == p.max(axis=0)) & (p == p.max(axis=1, keepdims=True)))
    likely = p[rows, columns]
    coherence = 0.0
    surest = np.argsort(-likely)[:64]
    for one in surest:
        for other in surest:
            here = at_a[rows[one]].astype(float) - at_a[rows[other]]
            there = at_b[columns[one]].astype(float) - at_b[columns[other]]
            distance = ((here @ here + there @ there) / 2) ** 0.5
            if 0.01 < distance < 0.5 and np.linalg.norm(there - here) < 0.45 * distance:
                coherence += (likely[one] * likely[other]) ** 0.5
    return float(likely.sum()), float(likely.sum() * coherence**0.5)


def turned(places: np.ndarray, turns: int) -> np.ndarray:
    """Where they are once the image is turned as `numpy.rot90` turns it: the right edge becomes the upper one."""
    for _ in range(turns):
        places = np.stack((places[:, 1], -places[:, 0]), axis=1)
    return places


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_scores_are_those_of_the_formula(turns: int, workers: int) -> None:
    some = subsets([KEYPOINTS, 200, 17, 1, 0, KEYPOINTS, 90], turns)
    d, at, n = some.descriptors, some.places, some.counts
    for block, scores in scored(exhaustive(7, 4), some, workers):
        for (i, j), score in zip(block.tolist(), scores.tolist(), strict=True):
            found = [
                reference(d[i, 0, : n[i]], d[j, t, : n[j]], at[i], turned(at[j], t))
                for t in range(turns)
                if n[i] and n[j]
            ]
            assert score == pytest.approx(max(found, default=(0.0, 0.0))[1], rel=2e-2, abs=1e-6)


def test_the_same_things_in_the_same_order_score_higher() -> None:
    """Among equally alike images, those whose matches lie to one another as they do in the first."""
    some = subsets([KEYPOINTS] * 3)
    some.descriptors[1:, 0] = some.descriptors[0, 0]
    angle, scale = 0.2, 0.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    some.places[1] = some.places[0].astype(np.float32) @ turn.T
    ((block, scores),) = scored(exhaustive(3), some)
    by_pair = dict(zip(map(tuple, block.tolist()), scores.tolist(), strict=True))
    assert by_pair[0, 1] > 2 * by_pair[0, 2]


def test_images_that_share_things_score_higher() -> None:
    rng = np.random.default_rng(0)
    some = subsets([KEYPOINTS] * 6)
    shared = some.descriptors[0, 0, :60].astype(np.float32)
    some.descriptors[3, 0, 100:160] = unit(shared + 0.1 * rng.normal(size=shared.shape))
    some.places[3, 100:160] = some.places[0, :60]
    ((block, scores),) = scored(exhaustive(6), some)
    assert block[scores.argmax()].tolist() == [0, 3]
    assert [b.tolist() for b in above([(block, scores)], float(scores.max()))] == [[[0, 3]]]


def test_the_best_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    some = subsets([KEYPOINTS] * 12)
    whole = [(block, scores) for block, scores in scored(exhaustive(12, 3), some)]
    table = np.full((12, 12), -1.0)
    for block, scores in whole:
        table[block[:, 0], block[:, 1]] = table[block[:, 1], block[:, 0]] = scores
    nearest = np.argsort(-table, axis=1)[:, :3]
    expected = {tuple(sorted((i, j))) for i, row in enumerate(nearest) for j in row.tolist()}
    for together in (1, 20, 1 << 20):  # what fell out of the best does not come back
        monkeypatch.setattr(module, "_CANDIDATES", together)
        found = [tuple(pair) for block in best(12, whole, 3) for pair in block.tolist()]
        assert len(found) == len(set(found))
        assert set(found) == expected
    everything = [tuple(pair) for block in best(12, whole, 99) for pair in block.tolist()]
    assert sorted(everything) == list(combinations(range(12), 2))
    assert [len(block) for block in best(12, [], 3)] == [0]


def test_keypoints_of_all_parts_are_taken() -> None:
    rng = np.random.default_rng(0)
    crowd, rest = rng.uniform(0, 50, (2000, 2)), rng.uniform(0, 1600, (2000, 2))
    chosen = spread(np.concatenate((crowd, rest)).astype(np.float32))  # the crowd is stronger
    assert len(set(chosen.tolist())) == KEYPOINTS
    assert (np.diff(chosen) > 0).all()
    assert (chosen < 2000).mean() < 0.1
    assert chosen[0] == 0  # the strongest of a part
    assert spread(rest[:10].astype(np.float32)).tolist() == list(range(10))
    assert len(spread(np.zeros((300, 2), np.float32))) == KEYPOINTS  # all at one place


def test_places_are_relative_to_what_they_cover() -> None:
    found = relative(np.array([[100, 50], [300, 50], [200, 150]], np.float32))
    np.testing.assert_allclose(found, [[-0.5, -0.25], [0.5, -0.25], [0, 0.25]])
    assert len(relative(np.empty((0, 2), np.float32))) == 0
    assert np.isfinite(relative(np.ones((3, 2), np.float32))).all()
