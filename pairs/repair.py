"""Mends the graph of verified pairs: pairs between its components, and around the pairs that alone hold it together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.deduplicator import PairDeduplicator
from pairs.graph import Graph
from pairs.retrieval import Images, Vectors, ranked, similarities

AROUND = 256  # images on each side of a bridge that are looked at, the nearest in the graph


def repair(
    vectors: Vectors, verified: NDArray[np.integer], tried: NDArray[np.integer], repair_pairs: int = 20
) -> Iterator[Block]:
    """The likeliest pairs across each gap and each bridge.

    Args:
        vectors: (N, T, V) as in `retrieval`; an image of zeros takes no part.
        verified: (E, 2) pairs.
        tried: (P, 2) pairs that were matched; they are not proposed again.
        repair_pairs: from each component to all others, and across each bridge, at most.
    """
    count = len(vectors)
    graph, before = Graph(count, verified), Graph(count, np.concatenate((tried, verified)))
    deduplicate = PairDeduplicator(count)
    yield deduplicate(*_across_gaps(graph.components(), vectors, before, repair_pairs))
    for i, j in graph.bridges():
        left, right = (graph.breadth_first(*ends, most=AROUND).astype(np.int32) for ends in ((i, j), (j, i)))
        scores = similarities(np.asarray(vectors[left, 0], np.float32), vectors, right)
        scores[_among(before, left, count)[:, right]] = -np.inf
        rows, columns = np.unravel_index(_best(scores.ravel(), repair_pairs), scores.shape)
        yield deduplicate(left[rows], right[columns])


def _across_gaps(component: NDArray[np.int64], vectors: Vectors, before: Graph, most: int) -> tuple[Images, Images]:
    """Of each component but the largest, the pairs to others that are most alike: the others look for it."""
    sizes = np.bincount(component, minlength=1)
    one_is_largest = np.count_nonzero(sizes == sizes.max()) == 1
    looking = sizes[component] < sizes.max() if one_is_largest else np.ones(len(component), bool)
    small = np.flatnonzero(looking).astype(np.int32)

    def useless(rows: Images) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = component[rows][:, None] == component[None]
        return same | _among(before, rows, len(component))

    here, there, alike = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for rows, images, scores in ranked(vectors, most, small, forbidden=useless):
        found = images >= 0
        here.append(np.repeat(rows, images.shape[1])[found.ravel()])
        there.append(images[found])
        alike.append(scores[found])
    rows, images, scores = np.concatenate(here), np.concatenate(there), np.concatenate(alike)
    order = np.lexsort((-scores, component[rows]))
    of = component[rows][order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)  # within its component
    chosen = order[rank < most]
    return rows[chosen], images[chosen]


def _among(graph: Graph, rows: Images, count: int) -> NDArray[np.bool_]:
    """(R, count) whether an edge is there."""
    there = np.zeros((len(rows), count), bool)
    for row, image in enumerate(rows.tolist()):
        there[row, graph.neighbors(image)] = True
    return there


def _best(scores: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Places of the largest finite scores, at most `most`."""
    order = np.argsort(-scores, kind="stable")[:most]
    return order[np.isfinite(scores[order])]
