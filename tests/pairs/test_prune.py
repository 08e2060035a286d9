"""Scores are the dual softmax's; the right pairs are kept."""

from itertools import combinations

import numpy as np
import pytest

from pairs import prune as module
from pairs.exhaustive import exhaustive
from pairs.prune import INVERSE_TEMPERATURE, KEYPOINTS, Sketches, above, best, scored, spread


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def sketches(counts: list[int], turns: int = 1, seed: int = 0) -> Sketches:
    rng = np.random.default_rng(seed)
    descriptors = unit(rng.normal(size=(len(counts), turns, KEYPOINTS, 16))).astype(np.float16)
    for one, count in zip(descriptors, counts, strict=True):
        one[:, count:] = 0
    return Sketches(descriptors, np.array(counts))


def reference(a: np.ndarray, b: np.ndarray) -> float:
    """Two softmaxes, in float64: the sum of the mutual maxima."""
    e = np.exp(INVERSE_TEMPERATURE * a.astype(float) @ b.astype(float).T)
    p = e / e.sum(axis=0) * e / e.sum(axis=1, keepdims=True)
    return float(p[(p == p.max(axis=0)) & (p == p.max(axis=1, keepdims=True))].sum())


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_scores_are_the_dual_softmax_s(turns: int, workers: int) -> None:
    some = sketches([KEYPOINTS, 200, 17, 1, 0, KEYPOINTS, 90], turns)
    d, n = some.descriptors, some.counts
    for block, scores in scored(exhaustive(7, 4), some, workers):
        for (i, j), score in zip(block.tolist(), scores.tolist(), strict=True):
            expected = (
                max((reference(d[i, 0, : n[i]], d[j, t, : n[j]]) for t in range(turns)), default=0.0)
                if n[i] and n[j]
                else 0.0
            )
            assert score == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_images_that_share_things_score_higher() -> None:
    rng = np.random.default_rng(0)
    some = sketches([KEYPOINTS] * 6)
    shared = some.descriptors[0, 0, :60].astype(np.float32)
    some.descriptors[3, 0, 100:160] = unit(shared + 0.1 * rng.normal(size=shared.shape))
    ((block, scores),) = scored(exhaustive(6), some)
    assert block[scores.argmax()].tolist() == [0, 3]
    assert [b.tolist() for b in above([(block, scores)], float(scores.max()))] == [[[0, 3]]]


def test_the_best_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    some = sketches([KEYPOINTS] * 12)
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
