"""Coarse pruning: which of many candidate pairs are worth matching, told by a few keypoints of each image.

The strongest keypoints of 256 places of each image are matched by the matcher's dual softmax. That is 256 times less
work than 4096 keypoints a side. The softmax is softer than the matcher's: where most true partners are not among the
few, how alike a match is tells more than how much it stands out (over six photographed scenes, unrelated pairs are told
from related ones better by 8 than by 20).

A pair's score is the sum of the probabilities of its mutual maxima, times the square root of their coherence: the
surest matches in twos that are neighbours, and lie to one another in one image about as they do in the other. True
matches do; of unrelated images, few do.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.retrieval import first_of_each

KEYPOINTS = 256
INVERSE_TEMPERATURE = 8.0
_COHERENT = 64  # matches, the surest ones, that are compared in twos
_NEAR, _APART = 0.5, 0.01  # of an image's extent: neighbours lie between these, in the quadratic mean of both images
_TOLERANCE = 0.45  # of that distance, by which it may differ: a scale of 1.5, a turn by 25 degrees
_TOGETHER = 2  # images a product; 256 x 512 float32 stay in the cache
_CANDIDATES = 1 << 20  # pairs between two looks at which are the best

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Scored = tuple[Block, Floats]  # (K, 2) pairs, (K,) scores


@dataclass(frozen=True)
class KeypointSubsets:
    """A few keypoints of every image."""

    descriptors: NDArray[np.float16]  # (N, T, K, D) of unit length in T quarter turns, then zeros
    places: NDArray[np.float16]  # (N, K, 2) x, y of the keypoints; the longer side of what they cover is 1
    counts: NDArray[np.int64]  # (N,) keypoints of each image, at most K


def spread(places: NDArray[np.float32], count: int = KEYPOINTS) -> NDArray[np.int64]:
    """The strongest keypoints of all parts of an image: of 16 x 16 cells the first of each, then the second, ...

    The strongest of all crowd where an image has most texture, and another view may not show that.

    Args:
        places: (N, 2), the strongest first.
        count: how many to choose, at most.

    Returns:
        Rows, ascending.
    """
    if len(places) <= count:
        return np.arange(len(places))
    side = round(count**0.5)
    low, high = places.min(axis=0), places.max(axis=0)
    column, row = (np.minimum((places - low) / np.maximum(high - low, 1e-6) * side, side - 1)).astype(np.int64).T
    cell = row * side + column
    by_cell = np.argsort(cell, kind="stable")
    rank = np.empty(len(cell), np.int64)  # of each keypoint within its cell
    rank[by_cell] = np.arange(len(cell)) - np.searchsorted(cell[by_cell], cell[by_cell])
    return np.sort(np.argsort(rank, kind="stable")[:count])


def relative(places: NDArray[np.float32]) -> Floats:
    """(N, 2) in any unit -> from the middle of what they cover, whose longer side is 1."""
    if not len(places):
        return places
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - (low + high) / 2) / max(float((high - low).max()), 1e-6), np.float32)


def scored(blocks: Iterable[Block], subsets: KeypointSubsets, workers: int = 1) -> Iterator[Scored]:
    """The blocks with a score for every pair, in their order.

    The caller limits BLAS to one thread where there are several workers.
    """
    with ThreadPoolExecutor(workers) as pool:
        for block in blocks:
            order = np.argsort(block[:, 0], kind="stable")
            cuts = np.flatnonzero(np.diff(block[order, 0])) + 1
            parts = [
                part[start : start + _TOGETHER]
                for part in np.split(order, cuts)
                for start in range(0, len(part), _TOGETHER)
            ]
            scores = np.empty(len(block), np.float32)
            found = pool.map(lambda part, block=block: _scores(subsets, block[part]), parts)
            for part, values in zip(parts, found, strict=True):
                scores[part] = values
            yield block, scores


def above(candidates: Iterable[Scored], threshold: float) -> Iterator[Block]:
    """Pairs whose score is `threshold` at least."""
    for block, scores in candidates:
        yield block[scores >= threshold]


def best(count: int, candidates: Iterable[Scored], num_images: int) -> Iterator[Block]:
    """Pairs that are among the `num_images` best of either of their images, and have a score at all.

    Args:
        count: number of images.
        candidates: each pair once; a million and those that are kept stay in memory.
        num_images: of each image.
    """
    blocks, scores, waiting = [np.empty((0, 2), np.int32)], [np.empty(0, np.float32)], 0
    for block, values in candidates:
        blocks.append(block[values > 0])
        scores.append(values[values > 0])
        waiting += len(block)
        if waiting >= _CANDIDATES:
            chosen, kept = _best(count, np.concatenate(blocks), np.concatenate(scores), num_images)
            blocks, scores, waiting = [chosen], [kept], 0
    yield _best(count, np.concatenate(blocks), np.concatenate(scores), num_images)[0]


def _best(count: int, pairs: Block, scores: Floats, num_images: int) -> Scored:
    ends = pairs.T.ravel()  # every pair from both of its sides
    # of equal scores, the pair that comes first by its images, whatever the order of the candidates
    codes = pairs.astype(np.int64) @ (count, 1)
    order = np.lexsort((np.tile(codes, 2), -np.tile(scores, 2), ends))
    kept = among_first(ends, order, num_images)
    return pairs[kept], scores[kept]


def among_first(ends: NDArray[np.integer], order: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """(K,) which of K pairs are among the `most` first ones of either of their images.

    Args:
        ends: (2K,) the first images of all pairs, then the second ones.
        order: (2K,) of the ends, by image, and within an image as its pairs are to be taken.
        most: of an image.
    """
    kept = np.zeros(len(ends) // 2, bool)
    kept[first_of_each(ends, order, most) % max(len(kept), 1)] = True
    return kept


def _scores(subsets: KeypointSubsets, pairs: Block) -> Floats:
    """(C,) of pairs with the same first image: the best turn of the second counts."""
    turns, size = subsets.descriptors.shape[1:3]
    first, others = pairs[0, 0], pairs[:, 1]
    left = subsets.descriptors[first, 0].astype(np.float32) * np.float32(INVERSE_TEMPERATURE)  # (K, D)
    right = subsets.descriptors[others].astype(np.float32)  # (C, T, K, D)
    flat = left @ right.reshape(-1, right.shape[-1]).T  # (K, C * T * K)
    cv2.exp(flat, flat)
    e, ones = flat.reshape(size, -1, size), np.ones(size, np.float32)  # (K, C * T, K); sums are fastest as products
    # keypoints that are not there have e = 1: they are taken out of the sums and give nothing
    here, there = subsets.counts[first], np.repeat(subsets.counts[others], turns)
    row_sums, column_sums = e @ ones, (ones @ flat).reshape(-1, size)  # (K, C * T), (C * T, K)
    rows = 1 / np.sqrt(np.maximum(row_sums - np.float32(size) + there.astype(np.float32), 1e-9))
    columns = 1 / np.sqrt(np.maximum(column_sums - np.float32(size - here), 1e-9))
    rows[here:] = 0
    columns[np.arange(size) >= there[:, None]] = 0
    e *= rows[..., None]
    e *= columns  # squared, the product of both softmaxes
    at = e.argmax(axis=2)  # (K, C * T) of each row
    highest = np.take_along_axis(e, at[..., None], axis=2)[..., 0]
    mutual = highest >= e.max(axis=0)[np.arange(e.shape[1]), at]
    likely = highest**2 * mutual  # of every keypoint of the first, its match's probability
    alike = likely.sum(axis=0).reshape(-1, turns)
    turn = alike.argmax(axis=1)
    chosen = np.arange(len(others)) * turns + turn
    surest = np.argsort(-likely[:, chosen], axis=0, kind="stable")[:_COHERENT].T  # (C, M)
    weight = np.take_along_axis(likely[:, chosen].T, surest, axis=1)
    a = _complex(subsets.places[first])[surest]
    b = np.take_along_axis(_complex(subsets.places[others]), at[surest, chosen[:, None]], axis=1)
    # to where it is in the turned image, as numpy.rot90 turns
    b *= np.array((1, -1j, -1, 1j), np.complex64)[turn, None]
    return np.asarray(alike.max(axis=1) * np.sqrt(_coherence(a, b, weight)), np.float32)


def _coherence(a: Complexes, b: Complexes, weight: Floats) -> Floats:
    """(C,) of (C, M) matched places, x + iy, and probabilities: coherent twos' geometric means, summed."""
    apart_a, apart_b = a[:, :, None] - a[:, None], b[:, :, None] - b[:, None]
    squared = (_squared(apart_a) + _squared(apart_b)) / 2
    coherent = (squared < _NEAR**2) & (squared > _APART**2)
    coherent &= _squared(apart_b - apart_a) < np.float32(_TOLERANCE**2) * squared
    root = np.sqrt(weight)
    return np.asarray((root * (coherent.astype(np.float32) @ root[..., None])[..., 0]).sum(axis=1), np.float32)


def _complex(places: NDArray[np.float16]) -> Complexes:
    return places.astype(np.float32).view(np.complex64)[..., 0]


def _squared(z: Complexes) -> Floats:
    return np.asarray(z.real**2 + z.imag**2, np.float32)
