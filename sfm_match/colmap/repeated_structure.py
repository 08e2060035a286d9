"""Accepted pairs that show two places which look alike, not one: the matches of stronger pairs contradict them.

Houses of a street have the same windows, and a pair of two such houses has hundreds of matches that fit one geometry.
But a stronger pair, of two views of one place, mostly shows both houses: then two windows are two points in one image,
and a pair that makes one point of them is wrong.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.chained_rotations import turned_away
from sfm_match.colmap.components import Component, components
from sfm_match.colmap.partial_database import Source, points_of
from sfm_match.job.log import LOGGER

_LEAST = 0.02  # of a pair's matches must be contradicted for it to be doubted
_APART = 0.02  # of the image's extent: nearer to one another, two keypoints may be of one point
_MOST = 100_000_000  # keypoints, of which eight bytes each are held; where there are more, no pair is doubted
_CACHED = 64  # images whose keypoints are held
_Roots = NDArray[np.int32]
_Points = NDArray[np.float32]


def contradicted(database: Path, inliers: Mapping[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Pairs whose matches contradict the tracks of those with more matches oftener than they agree with them.

    Pairs are taken in the order of their matches, the most first, and tracks grow with each that is believed: keypoints
    that matches connect, directly or through others. A match agrees with the tracks where both of its keypoints are of
    one already; it contradicts them where the track of one has another keypoint in the other's image, elsewhere.

    Args:
        database: as `import` leaves it.
        inliers: accepted pairs of names, and how many matches each has.
    """
    with closing(sqlite3.connect(database)) as connection:
        source, order = Source.of(connection, inliers).strongest_first()
        counts = _keypoints(connection, np.unique(source.pairs).tolist())
        if sum(counts.values()) > _MOST or 0 in counts.values():
            return set()
        tracks, points, names = _Tracks(counts), lru_cache(_CACHED)(partial(_points, connection)), list(inliers)
        return {
            names[number]
            for number, (a, b, matches) in zip(order.tolist(), source.each(), strict=True)
            if not tracks.grown((a, points(a)), (b, points(b)), matches)
        }


def trusted_components(database: Path, names: Sequence[str], least: int) -> tuple[list[Component], int]:
    """`components` without the pairs that are `contradicted` or `turned_away`, and how many those are."""
    found = components(database, names, least)
    doubted = {pair for component in found for pair in contradicted(database, component.inliers)}
    for component in found:
        believed = {pair: count for pair, count in component.inliers.items() if pair not in doubted}
        doubted |= turned_away(database, believed)
    if doubted:
        LOGGER.info("%d pairs contradict stronger ones and are not used: their places look alike", len(doubted))
        found = components(database, names, least, doubted)
    return found, len(doubted)


def _keypoints(connection: sqlite3.Connection, images: Sequence[int]) -> dict[int, int]:
    """How many each of some images has."""
    query = "SELECT rows FROM keypoints WHERE image_id = ?"
    rows = {image: connection.execute(query, (image,)).fetchone() for image in images}
    return {image: int(row[0]) if row else 0 for image, row in rows.items()}


def _points(connection: sqlite3.Connection, image: int) -> _Points:
    """(N, 2) keypoints of an image, in units of their extent."""
    points = points_of(connection, image)
    return np.asarray(points / max(1.0, float(np.ptp(points, axis=0).max())), np.float32)


class _Tracks:
    """Of the keypoints of some images: a forest, in which each keypoint points towards the root of its track."""

    def __init__(self, keypoints: Mapping[int, int]) -> None:
        """`keypoints`: how many each image has."""
        ends = np.cumsum([0, *keypoints.values()]).tolist()
        self._place = dict(zip(keypoints, pairwise(ends), strict=True))
        self._parent: _Roots = np.arange(ends[-1], dtype=np.int32)
        self._seen: _Roots = np.full(ends[-1], -1, np.int32)  # of a root: a keypoint, of the image last looked at

    def grown(self, one: tuple[int, _Points], other: tuple[int, _Points], matches: NDArray[np.int64]) -> bool:
        """Grows the tracks by (M, 2) matches of two images, with their keypoints, unless they contradict them."""
        (a, points_a), (b, points_b) = one, other
        first = self._roots(self._place[a][0] + matches[:, 0])
        second = self._roots(self._place[b][0] + matches[:, 1])
        same = first == second
        elsewhere = self._elsewhere(b, points_b, first, matches[:, 1])
        elsewhere |= self._elsewhere(a, points_a, second, matches[:, 0])
        against = ~same & elsewhere
        if against.sum() > max(same.sum(), _LEAST * len(matches)):
            return False
        free = ~(same | against)
        low, high = np.minimum(first[free], second[free]), np.maximum(first[free], second[free])
        self._parent[high] = low  # where two matches would join the same root to others, one of them does
        return True

    def _elsewhere(self, image: int, points: _Points, roots: _Roots, matched: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some tracks have a keypoint in an image far from the one there that they are matched with."""
        start, end = self._place[image]
        own = self._roots(np.arange(start, end))
        self._seen[own] = np.arange(end - start)
        there = self._seen[roots]
        self._seen[own] = -1
        apart = np.abs(points[there] - points[matched]).max(axis=1)
        return np.asarray((there >= 0) & (apart > _APART), bool)

    def _roots(self, keypoints: NDArray[np.int64]) -> _Roots:
        roots = self._parent[keypoints]
        while True:
            further = self._parent[roots]
            if np.array_equal(further, roots):
                self._parent[keypoints] = roots
                return roots
            roots = further
