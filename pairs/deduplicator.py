"""Pairs that come up from both of their images, each given once."""

import numpy as np
from numpy.typing import NDArray

from pairs import Block

_CODES = 1 << 32  # of a part of all pairs


class PairDeduplicator:
    """Turns what strategies find from the side of each image into canonical pairs; 4 bytes a pair stay in memory."""

    def __init__(self, count: int) -> None:
        self._count = count  # of images
        self._codes = max(_CODES // max(count, 1), 1) * count  # those of some first images
        self._seen: dict[int, NDArray[np.uint32]] = {}  # of each part the codes that came, from its first on, ascending

    def __call__(self, here: NDArray[np.integer], there: NDArray[np.integer]) -> Block:
        """(K,), (K,) images, in any order and any number of times -> (L, 2) pairs i < j that did not come before."""
        low, high = np.minimum(here, there).astype(np.int64), np.maximum(here, there)
        codes = np.unique((low * self._count + high)[low != high])
        part = codes // max(self._codes, 1)
        fresh = [self._fresh(some) for some in np.split(codes, np.flatnonzero(np.diff(part)) + 1) if len(some)]
        return np.stack(np.divmod(np.concatenate((codes[:0], *fresh)), self._count or 1), axis=1).astype(np.int32)

    def _fresh(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those codes of one part that did not come before."""
        part = int(codes[0]) // self._codes
        seen, low = self._seen.get(part, np.empty(0, np.uint32)), (codes - part * self._codes).astype(np.uint32)
        new = ~among(low, seen)
        # numpy's stable sort merges two runs in one pass
        self._seen[part] = np.sort(np.concatenate((seen, low[new])), kind="stable")
        return codes[new]


def among(codes: NDArray[np.integer], known: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(K,) whether each code is among the known ones, which ascend: np.isin would sort them for every block."""
    places = np.searchsorted(known, codes)
    inside = places < len(known)
    inside[inside] = known[places[inside]] == codes[inside]
    return np.asarray(inside, np.bool_)
