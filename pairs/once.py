"""Pairs that come up from both of their images, each given once."""

import numpy as np
from numpy.typing import NDArray

from pairs import Block


class Once:
    """Turns what strategies find from the side of each image into canonical pairs; 8 bytes a pair stay in memory."""

    def __init__(self, count: int) -> None:
        self._count = count  # of images
        self._seen = np.empty(0, np.int64)  # codes i * count + j, ascending

    def __call__(self, here: NDArray[np.integer], there: NDArray[np.integer]) -> Block:
        """(K,), (K,) images, in any order and any number of times -> (L, 2) pairs i < j that did not come before."""
        low, high = np.minimum(here, there).astype(np.int64), np.maximum(here, there)
        codes = np.unique((low * self._count + high)[low != high])
        places = np.searchsorted(self._seen, codes)
        known = places < len(self._seen)
        known[known] = self._seen[places[known]] == codes[known]
        fresh = codes[~known]
        # numpy's stable sort merges two runs in one pass
        self._seen = np.sort(np.concatenate((self._seen, fresh)), kind="stable")
        return np.stack(np.divmod(fresh, self._count), axis=1).astype(np.int32)
