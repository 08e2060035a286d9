"""A matches B and B matches C: A may match C."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.graph import Graph


def transitive(count: int, verified: NDArray[np.integer]) -> Iterator[Block]:
    """Images two steps apart in the graph of verified pairs.

    Args:
        count: number of images.
        verified: (E, 2) pairs.

    Yields:
        One block an image that has such partners.
    """
    graph = Graph(count, verified)
    for image in range(count):
        near = graph.neighbors(image)
        if not len(near):
            continue
        far = np.unique(np.concatenate([graph.neighbors(other) for other in near.tolist()]))
        far = np.setdiff1d(far[far > image], near, assume_unique=True)
        if len(far):
            yield np.stack((np.full_like(far, image), far), axis=1).astype(np.int32)
