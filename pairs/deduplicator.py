"""Pairs that come up from both of their images, each given once."""

import numpy as np
from numpy.typing import NDArray

from pairs import Block


class PairDeduplicator:
    """Turns what strategies find from the side of each image into canonical pairs; 8 bytes a pair stay in memory."""

    def __init__(self, count: int) -> None:
        self._count = count  # of images
        self._seen = np.empty(0, np.int64)  # codes i * count + j, ascending

    def __call__(self, here: NDArray[np.integer], there: NDArray[np.integer]) -> Block:
        """(K,), (K,) images, in any order and any number of times -> (L, 2) pairs i < j that did not come before."""
        low, high = np.minimum(here, there).astype(np.int64), np.maximum(here, there)
        codes = np.unique((low * self._count + high)[low != high])
        fresh = codes[~among(codes, self._seen)]
        # numpy's stable sort merges two runs in one pass
        self._seen = np.sort(np.concatenate((self._seen, fresh)), kind="stable")
        return np.stack(np.divmod(fresh, self._count), axis=1).astype(np.int32)


def among(codes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(K,) whether each code is among the known ones, which ascend: np.isin would sort them for every block."""
    places = np.searchsorted(known, codes)
    inside = places < len(known)
    inside[inside] = known[places[inside]] == codes[inside]
    return np.asarray(inside, np.bool_)
