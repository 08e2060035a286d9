"""Each image with those that look most like it, by the cosine of one vector an image.

The nearest are found exactly, by products of blocks of the vectors: 50,000 images took two minutes on two cores when
each product of two images was made twice, now it is made once. faiss takes one minute, for a dependency of 66 MB;
beside the hours of extraction that decides nothing. Vectors may lie in a file: two blocks of them are in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.deduplicator import PairDeduplicator

Floats = NDArray[np.float32]
Images = NDArray[np.int32]
Forbidden = Callable[[Images], NDArray[np.bool_]]
NUM_IMAGES = 20
_CELLS = 1 << 22  # of a block of scores, or of vectors: 16 MB. Blocks of a quarter take 1.3 times as long
_ROWS = 1 << 11  # queries that are asked for together
_SORTED = 1 << 8  # of them: what is sorted is a copy
_MANY = 2  # times as many candidates as are asked for: they are cut before they are sorted


class Vectors(Protocol):
    """(N, T, V) unit vectors of each image in T quarter turns, zeros where an image has none: an array, or a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray[np.floating]:
        """(R, V) of `rows, turn`: places of images, mostly one after the other, and a turn."""


def retrieval(
    vectors: Vectors,
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
    vectors: Vectors,
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
    described = _described(vectors)
    symmetric = queries is None and database is None and forbidden is None and vectors.shape[1] == 1
    queries, database = (chosen[described[chosen]] for chosen in (_or(queries, every), _or(database, every)))
    if not len(queries) or not len(database):
        return
    count = min(num_images, len(database))
    least = 1 if forbidden is not None else _ROWS  # what is forbidden is told for all images at once
    rows = np.array_split(queries, -(-len(queries) // max(least, _CELLS // len(database))))
    columns = rows if symmetric else np.array_split(database, -(-len(database) // _width(vectors, len(rows[0]))))
    found = [_Best(len(some), count) for some in rows]
    for number, some in enumerate(rows):
        left_out = forbidden(some) if forbidden is not None else None
        upright = np.asarray(vectors[some, 0], np.float32)
        for place, others in enumerate(columns):
            if symmetric and place < number:  # these were found when it was their turn
                continue
            scores = similarities(upright, vectors, others)
            if not symmetric or place == number:
                scores[some[:, None] == others[None]] = -np.inf
            if left_out is not None:
                scores[left_out[:, others]] = -np.inf
            found[number].see(scores, others)
            if symmetric and place > number:
                found[place].see(scores.T, some)
        yield some, *found[number].told()
        found[number] = _Best(0, count)


class _Best:
    """The images most like each of some queries, of those that were seen."""

    def __init__(self, queries: int, count: int) -> None:
        self._images = np.full((queries, count), -1, np.int32)
        self._scores = np.full((queries, count), -np.inf, np.float32)

    def see(self, scores: Floats, images: Images) -> None:
        """(Q, C) scores of (C,) images, which come after those that were seen before: of equals, the first counts."""
        queries, count = self._scores.shape
        least = self._scores[:, -1:]
        if np.count_nonzero(scores > least) > _MANY * queries * count:  # all, at first; or what is like them comes late
            parts = (scores[start : start + _SORTED] for start in range(0, queries, _SORTED))
            best = np.concatenate([np.partition(part, -count, axis=1)[:, -count, None] for part in parts])
            least = np.maximum(least, _below(best))
        query, column = np.nonzero(scores > least)
        query = np.concatenate((query, np.repeat(np.arange(queries), count)))
        image = np.concatenate((images[column], self._images.ravel()))
        score = np.concatenate((scores[query[: len(column)], column], self._scores.ravel()))
        order = np.lexsort((image, -score, query))
        first = first_of_each(query, order, count)
        self._images, self._scores = image[first].reshape(queries, count), score[first].reshape(queries, count)

    def told(self) -> tuple[Images, Floats]:
        """As `ranked` yields it."""
        return np.where(np.isfinite(self._scores), self._images, -1).astype(np.int32), self._scores


def first_of_each(groups: NDArray[np.integer], order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The places in `order` that are among the `most` first ones of their group.

    Args:
        groups: (K,) the group of each place.
        order: (K,) places by group, and within a group as they are to be taken.
        most: of a group.
    """
    ordered = groups[order]
    return order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < most]


def _below(scores: Floats) -> Floats:
    """The numbers just below."""
    return np.nextafter(scores, np.float32(-np.inf))


def _described(vectors: Vectors) -> NDArray[np.bool_]:
    """(N,) whether each image has a vector."""
    blocks = np.array_split(np.arange(len(vectors)), -(-len(vectors) // _width(vectors, 1)) or 1)
    return np.concatenate([np.abs(vectors[some, 0]).max(axis=1, initial=0) > 0 for some in blocks])


def _width(vectors: Vectors, rows: int) -> int:
    """How many images make a block of vectors, and of scores with so many queries."""
    return max(1, _CELLS // max(1, vectors.shape[2], rows))


def similarities(upright: Floats, vectors: Vectors, columns: Images) -> Floats:
    """(R, C) cosines of (R, V) upright images and the turn of each other one that is most like it."""
    scores = np.full((len(upright), len(columns)), -np.inf, np.float32)
    width = -(-_width(vectors, 1) // 4)  # what is multiplied, and its product, are there beside the scores
    for start in range(0, len(columns), width):
        part = slice(start, start + width)
        for turn in range(vectors.shape[1]):
            other = np.asarray(vectors[columns[part], turn], np.float32)
            np.maximum(scores[:, part], upright @ other.T, out=scores[:, part])
    return scores


def _or(chosen: Images | None, every: Images) -> Images:
    return every if chosen is None else chosen


def most_pairs(queries: Images, database: Images, num_images: int) -> int:
    """How many pairs `retrieval` gives, at most."""
    return len(queries) * min(num_images, len(database))
