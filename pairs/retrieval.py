"""Each image with those that look most like it, by the cosine of one vector an image.

The nearest are found exactly, by products of blocks of the vectors: 50,000 images take two minutes on two cores. faiss
takes one, for a dependency of 66 MB; beside the hours of extraction that decides nothing.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.deduplicator import PairDeduplicator

Floats = NDArray[np.float32]
Images = NDArray[np.int32]
Forbidden = Callable[[Images], NDArray[np.bool_]]
NUM_IMAGES = 20
_CELLS = 1 << 24  # of a block of scores; 64 MB


def retrieval(
    vectors: NDArray[np.floating],
    num_images: int = NUM_IMAGES,
    queries: Images | None = None,
    database: Images | None = None,
    forbidden: Forbidden | None = None,
) -> Iterator[Block]:
    """Each query with the images of the database that are most like it.

    Args:
        vectors: (N, T, V) unit vectors of each image in T quarter turns; zeros where an image has none.
        num_images: of each query.
        queries, database: images; without: all.
        forbidden: (R,) queries -> (R, N) images that do not count for them.
    """
    deduplicate = PairDeduplicator(len(vectors))
    for here, there, _ in ranked(vectors, num_images, queries, database, forbidden):
        yield deduplicate(np.repeat(here, there.shape[1])[there.ravel() >= 0], there[there >= 0])


def ranked(
    vectors: NDArray[np.floating],
    num_images: int,
    queries: Images | None = None,
    database: Images | None = None,
    forbidden: Forbidden | None = None,
) -> Iterator[tuple[Images, Images, Floats]]:
    """A block of queries at a time: the images most like each, never itself.

    Args: as in `retrieval`.

    Yields:
        (Q,) queries; (Q, K) images, the most similar first, -1 where there are fewer; (Q, K) cosines.
    """
    every = np.arange(len(vectors), dtype=np.int32)
    described = np.asarray(np.abs(vectors[:, 0]).max(axis=1, initial=0) > 0)
    queries, database = (chosen[described[chosen]] for chosen in (_or(queries, every), _or(database, every)))
    if not len(queries) or not len(database):
        return
    count = min(num_images, len(database))
    for rows in np.array_split(queries, -(-len(queries) * len(database) // _CELLS)):
        scores = similarities(vectors, rows, database)
        scores[rows[:, None] == database[None]] = -np.inf
        if forbidden is not None:
            scores[forbidden(rows)[:, database]] = -np.inf
        best = np.argpartition(scores, -count, axis=1)[:, -count:] if count < len(database) else _all_of(scores)
        values = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((database[best], -values))  # of equals, the first image
        best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
        yield rows, np.where(np.isfinite(values), database[best], -1).astype(np.int32), values


def similarities(vectors: NDArray[np.floating], rows: Images, columns: Images) -> Floats:
    """(R, C) cosines; an upright image against the turn of the other that is most like it."""
    upright = np.asarray(vectors[rows, 0], np.float32)
    scores = np.full((len(rows), len(columns)), -np.inf, np.float32)
    width = max(1, _CELLS // max(1, vectors.shape[2]))
    for start in range(0, len(columns), width):
        part = slice(start, start + width)
        for turn in range(vectors.shape[1]):
            other = np.asarray(vectors[columns[part], turn], np.float32)
            np.maximum(scores[:, part], upright @ other.T, out=scores[:, part])
    return scores


def _or(chosen: Images | None, every: Images) -> Images:
    return every if chosen is None else chosen


def _all_of(scores: Floats) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)


def most_pairs(queries: Images, database: Images, num_images: int) -> int:
    """How many pairs `retrieval` gives, at most."""
    return len(queries) * min(num_images, len(database))
