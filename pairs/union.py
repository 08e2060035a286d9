"""Several strategies as one."""

from collections.abc import Iterable, Iterator

import numpy as np

from pairs import Block
from pairs.deduplicator import among


def union(count: int, strategies: Iterable[Iterator[Block]]) -> Iterator[Block]:
    """All pairs of the strategies, each once, in the order in which they first come.

    Args:
        count: number of images.
        strategies: streams of blocks; 8 bytes a pair of theirs stay in memory.
    """
    seen = np.empty(0, np.int64)
    for blocks in strategies:
        mine = [np.empty(0, np.int64)]
        for block in blocks:
            codes = block.astype(np.int64) @ (count, 1)
            fresh = ~among(codes, seen)
            mine.append(codes[fresh])
            yield block[fresh]
        seen = np.union1d(seen, np.concatenate(mine))
