"""Proofs that the results are right."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.networks import runtime, unit
from gpu.plan import Failed, Work
from sfm_match.block_matching import MORE, STEP, BlockMatcher, packed
from sfm_match.runtime.planning import pairs_a_call

_TEMPERATURE, _THRESHOLD = 20.0, 0.01
_LEAST_EQUAL = 0.999  # of numpy's matches; the rest are ties, and probabilities at the threshold
_SCORES = 2e-3  # relative: products of float16 summed in another order, under an exponential
# keypoints of a pair: nearly all padding, some, none; one more than a block; one keypoint alone
_PARTIAL = ((5, 7), (1000, 1024), (1024, 1024), (1, 900), (300, 2049), (4096, 3000))
_PARTIAL_QUICK = ((5, 7), (200, 256))


def matching_parity(work: Work) -> None:
    """Pairs with partial keypoints, the rest of their rows padding, against numpy in float64."""
    engine = runtime(work.engine, work.settings)
    for dimension in (64,) if work.quick else (256, 64):
        for first, second in _PARTIAL_QUICK if work.quick else _PARTIAL:
            name = f"{first} and {second} keypoints of {dimension}"
            work.case(name, partial(_match, work, engine, first, second, dimension))


def _match(work: Work, engine: Any, first: int, second: int, dimension: int) -> Mapping[str, Any]:
    """A tile of four images, in which the two have their partners at other places."""
    block = _related((first, second, max(first // 2, 1), second), dimension)
    matcher = BlockMatcher(
        engine, _THRESHOLD, _TEMPERATURE, images=4, keypoints=max(first, second), dimension=dimension
    )
    pairs = np.array([(0, 1), (1, 0), (2, 3), (0, 0)], np.int32)
    equal, wanted, apart, not_finite = 0, 0, 0.0, 0
    for _ in range(3 if work.cuda else 1):  # plain, captured, replayed
        found = matcher.match_images(block, pairs)
        for (i, j), mine in zip(pairs, found, strict=True):
            indices, scores = match_in_numpy(block[i], block[j])
            theirs = {tuple(row): score for row, score in zip(indices.tolist(), scores.tolist(), strict=True)}
            ours = dict(zip(map(tuple, mine.indices.tolist()), mine.scores.astype(np.float64).tolist(), strict=True))
            same = theirs.keys() & ours.keys()
            equal, wanted = equal + len(same), wanted + max(len(theirs), len(ours))
            apart = max([apart, *(abs(ours[key] / theirs[key] - 1) for key in same)])
    raw = _raw(engine, block, pairs, dimension)
    not_finite = int((~np.isfinite(raw)).sum())
    seen = {"matches": wanted, "equal": round(equal / max(wanted, 1), 6), "score_apart": round(apart, 6)}
    seen["not_finite"] = not_finite
    if not wanted:
        raise Failed("numpy finds no match: the case shows nothing", **seen)
    if not_finite or equal < _LEAST_EQUAL * wanted or apart > _SCORES:
        raise Failed("not what numpy finds", **seen)
    return seen


def _raw(
    engine: Any, block: list[NDArray[np.float16]], pairs: NDArray[np.int32], dimension: int
) -> NDArray[np.float32]:
    """(P, N) the scores of every row, padding included, as the network gives them."""
    from sfm_match import parts

    keypoints = -(-max(map(len, block)) // STEP) * STEP
    most = pairs_a_call(engine.free_memory(), keypoints)
    session = engine.load(parts.match_block(len(block), keypoints, dimension + MORE, most))
    feeds = {
        "descriptors": engine.put("descriptors", packed(block, keypoints)),
        "pairs": engine.put("pairs", pairs.astype(np.int64)),
        "inverse_temperature": engine.put("inverse_temperature", np.array([_TEMPERATURE], np.float32)),
    }
    return np.asarray(engine.get(session.run(feeds)["scores"]))


def _related(counts: tuple[int, ...], dimension: int) -> list[NDArray[np.float16]]:
    """Descriptors of images that see some of the same: (N, D) each."""
    rng = np.random.default_rng(sum(counts))
    shared = rng.normal(size=(max(counts), dimension))
    block = []
    for count in counts:
        own = shared[rng.permutation(len(shared))[:count]] if count < len(shared) else shared
        block.append(unit(own + 0.4 * rng.normal(size=own.shape)))
    return block


def match_in_numpy(
    first: NDArray[np.float16], second: NDArray[np.float16]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mutual maxima of the dual softmax (`sfm_match.matching.dual_softmax`), as it is written, in float64.

    Args:
        first, second: (N, D), (M, D) of unit length.

    Returns:
        (K, 2) indices, (K,) probabilities above the threshold.
    """
    e = np.exp((first.astype(np.float64) @ second.astype(np.float64).T - 1) * _TEMPERATURE)
    p = (e / e.sum(axis=1, keepdims=True)) * (e / e.sum(axis=0, keepdims=True))
    place = p.argmax(axis=1)
    rows = np.arange(len(p))
    kept = (p.argmax(axis=0)[place] == rows) & (p[rows, place] > _THRESHOLD)
    return np.stack((rows[kept], place[kept]), axis=1), p[rows, place][kept]
