"""Every image with every other."""

from collections.abc import Iterator

import numpy as np

from pairs import Block

BLOCK = 64  # images; COLMAP's exhaustive matcher walks the same way, so that each image is loaded once per block


def exhaustive(count: int, block: int = BLOCK) -> Iterator[Block]:
    """All i < j < count, a block of rows by a block of columns at a time.

    Args:
        count: number of images.
        block: images a side of a block; at most block * block pairs are in memory.
    """
    for top in range(0, count, block):
        rows = np.arange(top, min(top + block, count), dtype=np.int32)
        for left in range(top, count, block):
            columns = np.arange(left, min(left + block, count), dtype=np.int32)
            i, j = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
            upper = i < j
            if upper.any():
                yield np.stack((i[upper], j[upper]), axis=1)
