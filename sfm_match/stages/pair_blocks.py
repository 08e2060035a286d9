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
from sfm_match.store.pair_table import PairTable
from sfm_match.store.shard import fingerprint

ROWS = 4  # blocks that stay in memory while the others pass

Part = tuple[tuple[int, int], NDArray[np.integer]]  # two blocks, and (P, 2) pairs of places in the names


def plan_blocks(
    folder: Path, expected: str, names: Sequence[str], features: FeatureSet, pairs: PairTable
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
        pairs: places in `names`, of images that have features.
    """
    if not len(pairs):
        return
    block = _blocks(names, features)
    for (a, b), part in _merged(_parts(block, pairs)):
        used = np.unique(part)
        used = used[np.argsort(block[used], kind="stable")]  # block after block
        place = np.empty(len(names), np.int32)
        place[used] = np.arange(len(used))
        images = {name: features.signatures[name] for name in (names[i] for i in used.tolist())}
        local = place[part]
        digest = fingerprint([expected, images, local.tolist()])[:8]
        path = folder / f"{a:05d}-{b:05d}-{digest}.h5"
        yield BlockPlan(path, images, _first_group(block[used]), local)


def _parts(block: NDArray[np.int32], pairs: PairTable) -> Iterator[Part]:
    """Pairs by the blocks of their images; a part is made when it is due."""
    for some in _by_rows(block, pairs):
        ends = np.sort(block[some], axis=1)
        order = np.lexsort((ends[:, 0], ends[:, 1]))  # by columns, then by rows; the others stay as they are
        some, ends = some[order], ends[order]
        cuts = np.flatnonzero((ends[1:] != ends[:-1]).any(axis=1)) + 1
        for part, (row, column) in zip(np.split(some, cuts), ends[[0, *cuts]].tolist(), strict=True):
            yield (row, column), part


def _by_rows(block: NDArray[np.int32], pairs: PairTable) -> Iterator[NDArray[np.int32]]:
    """(K, 2) pairs of `ROWS` rows of blocks, and of the next ones."""
    group = np.empty(len(pairs), np.int32)
    start = 0
    for some in pairs.in_parts():  # of millions, no other array is needed
        group[start : start + len(some)] = block[some].min(axis=1) // ROWS
        start += len(some)
    order = None
    if (group[1:] < group[:-1]).any():  # images that were added later are in later blocks, whatever their names
        order = np.argsort(group, kind="stable")
        group = group[order]
    cuts = (np.flatnonzero(group[1:] != group[:-1]) + 1).tolist()
    del group
    for start, end in zip([0, *cuts], [*cuts, len(pairs)], strict=True):
        yield pairs.at(np.arange(start, end) if order is None else order[start:end])


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
