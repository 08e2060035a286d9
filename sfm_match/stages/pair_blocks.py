"""Which pairs are matched together, and in which order: blocks of pairs that share images."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.collection import UNIT_SIZE
from sfm_match.stages import match_blocks
from sfm_match.stages.match_blocks import BlockPlan
from sfm_match.stages.state import FeatureSet
from sfm_match.store.shard import fingerprint

ROWS = 4  # blocks that stay in memory while the others pass
_AT_ONCE = 1 << 16  # pairs

Part = tuple[tuple[int, int], NDArray[np.integer]]  # two blocks, and (P, 2) pairs of places in the names


def plan_blocks(
    folder: Path, expected: str, names: Sequence[str], features: FeatureSet, pairs: NDArray[np.integer]
) -> Iterator[BlockPlan]:
    """Groups pairs by the blocks of their images; what is small is joined.

    A block of pairs has at most `2 * BLOCK` images and `BLOCK` squared pairs, so that a kill costs no more; two whole
    blocks of images make one. They go by `ROWS` rows of blocks, column by column: each block of images is read once in
    that many rows.

    Args:
        folder: of the files of matches.
        expected: fingerprint of the matches.
        names: of the collection.
        features: of the images.
        pairs: (P, 2) places in `names`, of images that have features.
    """
    if not len(pairs):
        return
    block = _blocks(names, features)
    parts = _parts(block, _ascending(pairs))
    del pairs  # of millions, one array is enough
    for (a, b), part in _merged(parts):
        used = np.unique(part)
        used = used[np.argsort(block[used], kind="stable")]  # block after block
        place = np.empty(len(names), np.int32)
        place[used] = np.arange(len(used))
        images = {name: features.signatures[name] for name in (names[i] for i in used.tolist())}
        local = place[part]
        digest = fingerprint([expected, images, local.tolist()])[:8]
        path = folder / f"{a:05d}-{b:05d}-{digest}.h5"
        yield BlockPlan(path, images, _first_group(block[used]), local)


def _ascending(pairs: NDArray[np.integer]) -> NDArray[np.integer]:
    """The pairs by their first place, then by their second."""
    first, second = pairs[:-1], pairs[1:]
    after = (second[:, 0] == first[:, 0]) & (second[:, 1] < first[:, 1])
    after |= second[:, 0] < first[:, 0]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))] if after.any() else pairs


def _parts(block: NDArray[np.int32], pairs: NDArray[np.integer]) -> Iterator[Part]:
    """Pairs, which ascend, by the blocks of their images; a part is made when it is due."""
    key = _keys(block, pairs)
    order = np.argsort(key, kind="stable")
    pairs, key = pairs[order], key[order]
    del order
    cuts = (np.flatnonzero(np.diff(key)) + 1).tolist()
    del key
    for start, end in zip([0, *cuts], [*cuts, len(pairs)], strict=True):
        part = pairs[start:end]
        yield (int(block[part[0]].min()), int(block[part[0]].max())), part


def _keys(block: NDArray[np.int32], pairs: NDArray[np.integer]) -> NDArray[np.integer]:
    """(P,) of each pair a number for the two blocks of its images; by these numbers the pairs go."""
    blocks = int(block.max()) + 1
    dtype = np.int32 if blocks**2 * ROWS <= np.iinfo(np.int32).max else np.int64
    key: NDArray[np.integer] = np.empty(len(pairs), dtype)
    for start in range(0, len(pairs), _AT_ONCE):  # of millions, no other array is needed
        ends = np.sort(block[pairs[start : start + _AT_ONCE]], axis=1).astype(dtype)
        row, column = ends.T
        key[start : start + _AT_ONCE] = (row // ROWS * blocks + column) * ROWS + row % ROWS
    return key


def _merged(parts: Iterable[Part]) -> Iterator[Part]:
    """Parts that follow one another as one, under the blocks of the first, as long as they make no large one."""
    most = match_blocks.BLOCK
    held: list[Part] = []
    images: set[int] = set()
    for key, part in parts:
        more = images | set(part.ravel().tolist())
        if held and (len(more) > 2 * most or sum(len(p) for _, p in held) + len(part) > most * most):
            yield held[0][0], np.concatenate([p for _, p in held])
            held, more = [], set(part.ravel().tolist())
        held.append((key, part))
        images = more
    yield held[0][0], np.concatenate([p for _, p in held])


def _first_group(block: NDArray[np.int32]) -> int:
    """How many images go to a device first: those of the first block, or as many as fit. `block` of each, ascending."""
    most = match_blocks.BLOCK
    in_first = len(next(list(same) for _, same in groupby(block.tolist())))
    return in_first if len(block) - in_first <= most else most


def _blocks(names: Sequence[str], features: FeatureSet) -> NDArray[np.int32]:
    """The block of each name, -1 without features; blocks do not cross units."""
    size = match_blocks.BLOCK
    per_unit = -(-UNIT_SIZE // size)
    seen: dict[int, int] = {}
    block = np.full(len(names), -1, np.int32)
    for i, name in enumerate(names):
        unit = features.units.get(name)
        if unit is not None:
            place = seen.get(unit, 0)
            seen[unit] = place + 1
            block[i] = unit * per_unit + place // size
    return block
