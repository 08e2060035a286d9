"""Ratios of our matcher and our store against the plain ways, in one run on one machine.

    python scripts/benchmarks/match_and_store.py [--out RESULT.json]

Matching: the blocked dual softmax with candidates against two full softmaxes in numpy, 4096 x 4096 unit descriptors,
one BLAS thread. Storing: a tile's file against a group a pair with two datasets (hloc's layout), 2,000 pairs of 100
matches, both synced to the disk. Each figure is the best of `--repeat` runs, taken in turns.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.store.matches import Matches, PairBlock, write_block

THRESHOLD, INVERSE_TEMPERATURE = 0.1, 20.0


def two_softmaxes(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    """The reference, dense; returns the number of matches."""
    similarity = INVERSE_TEMPERATURE * a @ b.T
    rows = np.exp(similarity - similarity.max(axis=1, keepdims=True))
    columns = np.exp(similarity - similarity.max(axis=0))
    p = rows / rows.sum(axis=1, keepdims=True) * (columns / columns.sum(axis=0))
    return int(((p == p.max(axis=1, keepdims=True)) & (p == p.max(axis=0)) & (p > THRESHOLD)).sum())


def descriptors(rng: np.random.Generator, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a = rng.normal(size=(4096, dimension)).astype(np.float32)
    b = a[rng.permutation(4096)] + rng.normal(0, 0.5, a.shape).astype(np.float32)
    b[2048:] = rng.normal(size=(2048, dimension))
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))


def write_groups(path: Path, tile: PairBlock) -> None:
    names = list(tile.images)
    with h5py.File(path, "w") as file:
        for (i, j), found in zip(tile.pairs, tile.matches, strict=True):
            group = file.create_group(f"{names[i]}/{names[j]}")
            group.create_dataset("matches0", data=found.indices)
            group.create_dataset("matching_scores0", data=found.scores)
        file.flush()
        os.fsync(file.id.get_vfd_handle())


def in_turns(ways: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Seconds, the best of `repeat` rounds."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeat):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    result: dict[str, object] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "load": os.getloadavg()[0]}
    for dimension in (64, 256):
        a, b = descriptors(rng, dimension)
        expected, found = two_softmaxes(a, b), len(match_descriptors(a, b, THRESHOLD).indices)
        with threadpool_limits(1, "blas"):
            seconds = in_turns(
                {
                    "two_softmaxes": partial(two_softmaxes, a, b),
                    "blocked": partial(match_descriptors, a, b, THRESHOLD),
                },
                options.repeat,
            )
        ratio = seconds["two_softmaxes"] / seconds["blocked"]
        result[f"match_{dimension}d"] = {**seconds, "ratio": ratio, "matches": [expected, found]}
    pairs = np.array([(i, j) for i in range(64) for j in range(i + 1, 64)][:2000], np.int32)
    matches = [
        Matches(rng.integers(0, 4096, (100, 2)).astype(np.uint32), rng.random(100).astype(np.float16)) for _ in pairs
    ]
    tile = PairBlock("benchmark", {f"{i}.jpg": "1:1" for i in range(64)}, pairs, matches)
    with tempfile.TemporaryDirectory() as folder:
        packed, groups = Path(folder) / "packed.h5", Path(folder) / "groups.h5"
        seconds = in_turns(
            {"group_a_pair": lambda: write_groups(groups, tile), "packed": lambda: write_block(packed, tile)},
            options.repeat,
        )
        sizes = {"group_a_pair": groups.stat().st_size, "packed": packed.stat().st_size}
    ratio = seconds["group_a_pair"] / seconds["packed"]
    result["store_2000_pairs"] = {**seconds, "ratio": ratio, "bytes": sizes}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
