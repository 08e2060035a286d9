"""Images that see the same points of a model that exists."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pairs import Block, PairsError
from pairs.deduplicator import PairDeduplicator

_IMAGES = 1024  # of a block


def covisibility(
    count: int, images: NDArray[np.integer], points: NDArray[np.integer], num_matched: int = 20
) -> Iterator[Block]:
    """Each image with those that share most points with it.

    Args:
        count: number of images.
        images: (O,) the image of each observation.
        points: (O,) the point of each observation.
        num_matched: of each image, at most.

    Raises:
        PairsError: no two images see the same point.
    """
    number = np.unique(points, return_inverse=True)[1].astype(np.int64)
    point, seer = np.divmod(np.unique(number * count + images), count)  # each once, by point
    starts = np.concatenate(([0], np.bincount(point).cumsum()))
    by_image = np.argsort(seer, kind="stable")
    bounds = np.searchsorted(seer[by_image], np.arange(count + 1))
    deduplicate, found = PairDeduplicator(count), 0
    for first in range(0, count, _IMAGES):
        here, there = [], []
        for image in range(first, min(first + _IMAGES, count)):
            mine = point[by_image[bounds[image] : bounds[image + 1]]]
            others, shared = np.unique(seer[_ranges(starts[mine], starts[mine + 1])], return_counts=True)
            order = np.argsort(-shared[others != image], kind="stable")[:num_matched]  # of equals, the first image
            there.append(others[others != image][order])
            here.append(np.full(len(there[-1]), image))
        block = deduplicate(np.concatenate(here), np.concatenate(there))
        found += len(block)
        yield block
    if not found:
        raise PairsError("covisibility: no two images of the collection see the same point of the model")


def _ranges(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """`starts[0] ... ends[0] - 1, starts[1] ...` as one array."""
    lengths = ends - starts
    return np.asarray(np.arange(lengths.sum()) + np.repeat(starts - lengths.cumsum() + lengths, lengths), np.int64)
