"""Time and peak memory of the strategies of pairs over many simulated images.

    python scripts/benchmarks/pairs_at_scale.py [--count 50000] [--out RESULT.json]

Each strategy runs in a process of its own, and its pairs are counted as they stream. sequential: folders of a thousand
frames; spatial: places on a square of five kilometres; retrieval: 10 an image, by a VLAD vector of 1024 random unit
descriptors (64 values) each; prune: the scores of all pairs of 400 images; match: 66 pairs of 4096 descriptors in full,
which is what pruning saves; exhaustive: all pairs.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from pairs import Block
from pairs.exhaustive import exhaustive
from pairs.prune import KEYPOINTS, KeypointSubsets, scored
from pairs.retrieval import retrieval
from pairs.sequential import sequential
from pairs.spatial import spatial
from pairs.vlad import Codebook
from sfm_match.matching.dual_softmax import match_descriptors

WIDTH, PER_VECTOR, POOL, SCORED, MATCHED = 64, 1024, 1 << 19, 400, 12


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal(shape, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vectors(count: int) -> np.ndarray:
    """(count, 1, V) of descriptors drawn from a pool."""
    rng = np.random.default_rng(0)
    pool = unit(rng, POOL, WIDTH)
    codebook = Codebook.learned(pool[:200_000])
    made = np.empty((count, 1, codebook.dimension), np.float16)

    def fill(number: int) -> None:
        rng = np.random.default_rng(number)
        made[number, 0] = codebook.vlad(pool[rng.integers(0, POOL, PER_VECTOR)])

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:  # as the stage does
        for _ in threads.map(fill, range(count)):
            pass
    return made


def blocks(strategy: str, count: int) -> Iterator[Block]:
    rng = np.random.default_rng(0)
    if strategy == "sequential":
        return sequential([f"{i // 1000:03d}/{i:06d}.jpg" for i in range(count)])
    if strategy == "spatial":
        return spatial(rng.uniform(0, 5000, (count, 3)))
    if strategy == "retrieval":
        return retrieval(vectors(count), 10)
    if strategy == "prune":
        descriptors = unit(rng, SCORED, 1, KEYPOINTS, WIDTH).astype(np.float16)
        places = rng.uniform(-0.5, 0.5, (SCORED, KEYPOINTS, 2)).astype(np.float16)
        subsets = KeypointSubsets(descriptors, places, np.full(SCORED, KEYPOINTS))
        return (block for block, _ in scored(exhaustive(SCORED), subsets, os.cpu_count() or 1))
    if strategy == "match":
        return matched(rng)
    return exhaustive(count)


def matched(rng: np.random.Generator) -> Iterator[Block]:
    """In threads, as the stage does."""
    descriptors = unit(rng, MATCHED, 4096, WIDTH)
    pairs = [(i, j) for i in range(MATCHED) for j in range(i + 1, MATCHED)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for pair, _ in zip(
            pairs,
            threads.map(lambda p: match_descriptors(descriptors[p[0]], descriptors[p[1]], 0.1), pairs),
            strict=True,
        ):
            yield np.array([pair], np.int32)


def measured(strategy: str, count: int) -> dict[str, float]:
    """Counts the pairs of a strategy in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load = os.getloadavg()[0]
    start = time.perf_counter()
    stream = blocks(strategy, count)
    made = time.perf_counter()
    with threadpool_limits(1 if strategy in ("prune", "match") else None, "blas"):
        pairs = sum(len(block) for block in stream)
    return {
        "pairs": pairs,
        "load_before": round(load, 2),
        "preparation_s": round(made - start, 2),
        "pairs_s": round(time.perf_counter() - made, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "peak_before_mb": round(before / 1024, 1),  # of the interpreter and the libraries
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000, help="images")
    parser.add_argument("--strategies", default="sequential,spatial,retrieval,prune,match,exhaustive")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "images": options.count,
    }
    if options.out is not None and options.out.exists():  # other strategies, measured before
        result = {**json.loads(options.out.read_text()), **result}
    context = multiprocessing.get_context("spawn")
    for strategy in options.strategies.split(","):
        with context.Pool(1) as pool:
            result[strategy] = pool.apply(measured, (strategy, options.count))
        print(strategy, result[strategy], flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
