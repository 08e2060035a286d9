"""How much matching reads and sends to a device: tiles, descriptors read from files, bytes sent. Counted, not timed.

    python scripts/benchmarks/match_traffic.py --out scripts/benchmarks/results/match_traffic.md

Three lists of pairs: all pairs of 1,024 images, a retrieval's (20 partners each of 4,096 images, at random), a video's
(10 neighbours each of 4,096 images). Before: each two blocks of images a tile, in the order of blocks, each tile's
images read and sent for it alone. Now: `stages.pair_blocks`, `FeatureCache`, the groups that `BlockMatcher` keeps.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.collection import UNIT_SIZE
from sfm_match.matching.on_device import GROUPS
from sfm_match.stages.feature_cache import KEPT
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.stages.pair_blocks import plan_blocks
from sfm_match.stages.state import FeatureSet
from sfm_match.store.pair_table import PairTable

KEYPOINTS, DIMENSION, MORE = 4096, 256, 8
IMAGE = KEYPOINTS * DIMENSION * 2  # bytes of descriptors
_LARGE = 16 << 30  # what a machine of 128 GiB keeps (`kept_bytes`)
SENT = KEYPOINTS * (DIMENSION + MORE) * 2  # bytes of an image on the device

Pairs = NDArray[np.int32]


def exhaustive(count: int) -> Pairs:
    """(P, 2) all pairs."""
    return np.stack(np.triu_indices(count, 1), axis=1).astype(np.int32)


def retrieval(count: int, partners: int) -> Pairs:
    """(P, 2) random partners of each image."""
    rng = np.random.default_rng(0)
    rows = np.stack((np.repeat(np.arange(count), partners), rng.integers(0, count, count * partners)), axis=1)
    rows = np.unique(np.sort(rows, axis=1), axis=0)
    return rows[rows[:, 0] < rows[:, 1]].astype(np.int32)


def sequential(count: int, overlap: int) -> Pairs:
    """(P, 2) the next images of each."""
    rows = [np.stack((np.arange(count - step), np.arange(step, count)), axis=1) for step in range(1, overlap + 1)]
    return np.concatenate(rows).astype(np.int32)


class Memory:
    """What was used last; counts what was not there."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self.missed = most, OrderedDict[object, None](), 0

    def use(self, key: object) -> None:
        self.missed += key not in self._held
        self._held[key] = None
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)


def before(pairs: Pairs) -> tuple[int, int, int]:
    """Tiles, images read, images sent."""
    blocks = np.unique(np.sort(pairs // BLOCK, axis=1), axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(blocks, kind="stable")
    parts = np.split(pairs[order], np.flatnonzero(np.diff(blocks[order])) + 1)
    images = sum(len(np.unique(part)) for part in parts)
    return len(parts), images, images


def now(pairs: Pairs, count: int, memory: int, workers: int = 2) -> tuple[int, int, int]:
    """Tiles, images read with as many bytes of memory, images sent (each group as 32) by as many threads."""
    names = [f"{i:06d}.jpg" for i in range(count)]
    units = {name: i // UNIT_SIZE for i, name in enumerate(names)}
    features = FeatureSet(Path("f"), {}, dict.fromkeys(names, 1), units, dict.fromkeys(names, "1:1"))
    cache, devices, tiles = Memory(memory // IMAGE), [Memory(GROUPS) for _ in range(workers)], 0
    for place, plan in enumerate(plan_blocks(Path("m"), "f", names, features, PairTable.of_pairs(pairs, count))):
        tiles += 1
        device = devices[place % workers]
        for group in filter(None, plan.groups):
            missed = device.missed
            device.use(group)
            if device.missed > missed:
                for name in group:
                    cache.use(name)
    return tiles, cache.missed, sum(device.missed for device in devices) * BLOCK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="markdown file")
    out = parser.parse_args().out
    lists = {
        "all pairs of 1,024 images": (exhaustive(1024), 1024),
        "retrieval, 20 of 4,096 images": (retrieval(4096, 20), 4096),
        "sequence, 10 next of 4,096 images": (sequential(4096, 10), 4096),
    }
    lines = [
        "# What matching reads and sends",
        "",
        f"`scripts/benchmarks/match_traffic.py`; counted, for {KEYPOINTS} x {DIMENSION} float16 an image and two "
        "threads on a GPU. MB are of 1,000 pairs.",
        "",
        "| pairs | | tiles (files) | read, MB | sent to the device, MB |",
        "|---|---|---|---|---|",
    ]
    memories = {f"now, {KEPT >> 20} MiB kept": KEPT, f"now, {_LARGE >> 30} GiB kept": _LARGE}
    for name, (pairs, count) in lists.items():
        thousand = len(pairs) / 1000
        rows = {"before": before(pairs)} | {when: now(pairs, count, kept) for when, kept in memories.items()}
        for when, (tiles, read, sent) in rows.items():
            shown = f"{read * IMAGE / thousand / 1e6:,.0f} | {sent * SENT / thousand / 1e6:,.0f}"
            lines.append(f"| {f'{name} ({len(pairs):,})' if when == 'before' else ''} | {when} | {tiles:,} | {shown} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
