"""Proofs that the results are right."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu import networks
from gpu.networks import runtime, unit
from gpu.plan import Failed, Work
from sfm_match.features.dedode import DeDoDeExtractor
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.progress import Clock
from sfm_match.matching.on_device import MORE, STEP, BlockMatcher, packed
from sfm_match.runtime.planning import pairs_a_call
from sfm_match.store.features import Features

_TEMPERATURE, _THRESHOLD = 20.0, 0.01
_LEAST_EQUAL = 0.999  # of numpy's matches; the rest are ties, and probabilities at the threshold
_SCORES = 2e-3  # relative: products of float16 summed in another order, under an exponential
_ALIKE = {False: (0.99, 0.9999), True: (0.75, 0.99)}  # by half: overlap, mean cosine; random weights tie often
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
    from sfm_match.features import device_graphs as parts

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


def bitwise(work: Work) -> None:
    """The same batch gives the same bits, however it is run."""
    side = networks.side_of(work.model, work.settings.sizes[0])
    small = networks.side_of(work.model, work.settings.sizes[0] * 2 // 3)
    shapes = [(side, side), (side, small), (small, side), (small, small)]
    buckets = Counter(dict.fromkeys(shapes, 10))  # one engine for all of them
    batch = 2 if work.quick else 4
    made: list[DeDoDeExtractor] = []

    def current() -> DeDoDeExtractor:
        if not made:
            made.append(networks.extractor(work, work.model, half=work.cuda, batch=batch, buckets=buckets))
        return made[0]

    work.case("plain, captured, replayed", lambda: _repeated(work, current(), shapes, batch))
    count = 12 if work.quick else 200
    work.case(f"two workers against one, {count} mixed batches", lambda: _workers(current(), shapes, batch, count))


def digest(found: Mapping[str, Any]) -> str:
    """Of features, every bit of them."""
    state = hashlib.sha256()
    for name in sorted(found):
        one = found[name]
        state.update(name.encode())
        arrays = (one.keypoints, one.scores, one.descriptors) if isinstance(one, Features) else (np.array([one]),)
        for array in arrays:
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _repeated(
    work: Work, extractor: DeDoDeExtractor, shapes: Sequence[tuple[int, int]], batch: int
) -> Mapping[str, Any]:
    """Six runs of each shape on one thread: the first plain, the second captured, the others replayed."""
    runs = 6 if work.cuda else 2
    differ = []
    keypoints = 0
    for shape in shapes[: 2 if work.quick else None]:
        loaded = networks.images(shape, batch, 1, padded=True)
        found = [extractor.features(loaded, Clock()) for _ in range(runs)]
        keypoints += sum(len(one.keypoints) for one in found[0].values() if isinstance(one, Features))
        if len({digest(one) for one in found}) > 1:
            differ.append(f"{shape}: {[digest(one)[:6] for one in found]}")
    seen = {"runs": runs, "keypoints": keypoints, "differ": differ}
    if differ or not keypoints:
        raise Failed("runs differ" if differ else "no keypoint: the case shows nothing", **seen)
    return seen


def _workers(
    extractor: DeDoDeExtractor, shapes: Sequence[tuple[int, int]], batch: int, count: int
) -> Mapping[str, Any]:
    """A stream of batches of mixed shapes and lengths in two threads, then the same one after the other."""
    rng = np.random.default_rng(0)
    every = [networks.images(shape, n, 1, seed, padded=True) for shape in shapes for n in (1, batch) for seed in (0, 4)]
    stream = [every[place] for place in rng.integers(len(every), size=count)]
    workers = extractor.workers if extractor.workers.count > 1 else WorkerThreads(2)  # on the CPU, too
    both = [digest(found) for _, found in workers.each(stream, lambda loaded: extractor.features(loaded, Clock()))]
    one = [digest(extractor.features(loaded, Clock())) for loaded in stream]
    differ = [place for place, (a, b) in enumerate(zip(both, one, strict=True)) if a != b]
    seen = {"batches": count, "different_inputs": len(every), "differ": len(differ), "first": differ[:8]}
    if len(set(one)) < len(every) // 2:
        raise Failed("the batches give too few different results: the case shows nothing", **seen)
    if differ:
        raise Failed("two workers give other bits than one", **seen)
    return seen


def features_parity(work: Work) -> None:
    """Keypoints and descriptors against the same model in float32 by torch on the CPU."""
    loaded = networks.square(work.model, work.settings.sizes[0], 2)
    side = networks.side_of(work.model, work.settings.sizes[0])
    settings = dataclasses.replace(work.settings, device="cpu")
    on_cpu = dataclasses.replace(work, settings=settings, engine="torch")
    make = partial(networks.extractor, batch=2, buckets=Counter({(side, side): 2}))
    expected: list[Mapping[str, Any]] = []

    def compare(half: bool) -> Mapping[str, Any]:
        if not expected:
            reference = make(on_cpu, work.model, half=False)
            expected.append(reference.features(loaded, Clock()))
        extractor = make(work, work.model, half=half)
        for _ in range(3 if work.cuda else 1):
            found = extractor.features(loaded, Clock())
        return {**alike(expected[0], found, half=half), "redone": extractor.redone}

    work.case("fp32", lambda: compare(False))
    if work.cuda:
        work.case("fp16", lambda: compare(True))


def alike(expected: Mapping[str, Any], found: Mapping[str, Any], *, half: bool) -> dict[str, Any]:
    """Share of the expected keypoints that are there within half a pixel, and their descriptors' cosines.

    Raises:
        Failed: too few, or descriptors that differ.
    """
    near, cosines = [], [np.zeros(0, np.float32)]
    for name, theirs in expected.items():
        ours = found[name]
        if not isinstance(theirs, Features) or not isinstance(ours, Features):
            raise Failed(f"no features: {theirs if isinstance(theirs, str) else ours}"[:300])
        apart = np.linalg.norm(theirs.keypoints[:, None] - ours.keypoints[None], axis=2)
        near.append(apart.min(axis=1) < 0.5)
        a, b = theirs.descriptors[near[-1]], ours.descriptors[apart.argmin(axis=1)[near[-1]]]
        cosines.append((a.astype(np.float32) * b.astype(np.float32)).sum(axis=1))
    joined = np.concatenate(cosines)
    seen = {"keypoints": sum(map(len, near)), "keypoint_overlap": round(float(np.concatenate(near).mean()), 4)}
    seen["descriptor_cosine_mean"] = round(float(joined.mean()), 6)
    seen["descriptor_cosine_least"] = round(float(joined.min()), 6)
    overlap, cosine = _ALIKE[half]
    if seen["keypoint_overlap"] < overlap or not seen["descriptor_cosine_mean"] >= cosine:
        raise Failed(f"less than {overlap} of the keypoints, or a mean cosine below {cosine}", **seen)
    return seen


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
