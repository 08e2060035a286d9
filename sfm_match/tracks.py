"""Keypoints of many images that show the same point, brought to agree.

Between two images an alignment says where the second keypoint should be if the first is right. A keypoint is matched in
several images, and each of them says something else: all keypoints of a track are moved, so that what the pairs say is
met as well as it can be (the graph formulation of Dusmanu, Schönberger & Pollefeys, "Multi-View Optimization of Local
Feature Geometry", ECCV 2020).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ROUNDS = 40
_NOISE = 0.1  # pixels: disagreement beyond it weighs by its size, not by the square


@dataclass(frozen=True)
class Relations:
    """What aligned pairs say of keypoints: `second` should be at its place + offset, if `first` is at its own."""

    first: NDArray[np.int64]  # (E,) keypoints, counted over all images
    second: NDArray[np.int64]  # (E,)
    offsets: Floats  # (E, 2) pixels of the second's image
    affines: Floats  # (E, 2, 2) second from first, of small movements


def join(parts: Iterable[Relations]) -> Relations:
    """All of them."""
    none = np.empty(0, np.int64)
    empty = Relations(none, none, np.empty((0, 2), np.float32), np.empty((0, 2, 2), np.float32))
    fields = zip(*(vars(part).values() for part in (empty, *parts)), strict=True)
    return Relations(*(np.concatenate(values) for values in fields))


def agree(relations: Relations, count: int) -> Floats:
    """Moves of `count` keypoints that fit the relations best: (count, 2) pixels of their images.

    A keypoint that moves by m takes what it is aligned with along by A m. The sum of the distances that are left is
    made small by reweighted least squares; each keypoint goes half way to where its relations want it, at once with all
    others. Those without relations stay.
    """
    moves = np.zeros((count, 2), np.float32)
    back = np.linalg.inv(relations.affines)
    first, second = relations.first, relations.second
    ends = np.concatenate((first, second))
    for _ in range(_ROUNDS):
        wanted = _times(relations.affines, moves[first]) + relations.offsets
        left = wanted - moves[second]
        weights = 1 / np.maximum(np.linalg.norm(left, axis=1), _NOISE)
        pull = np.concatenate((-_times(back, left), left)) * np.tile(weights, 2)[:, None]
        total = np.maximum(np.bincount(ends, np.tile(weights, 2), count), 1e-9)
        for axis in (0, 1):
            moves[:, axis] += (0.5 * np.bincount(ends, pull[:, axis], count) / total).astype(np.float32)
    return moves


def _times(maps: Floats, vectors: Floats) -> Floats:
    """(E, 2, 2) times (E, 2)."""
    return np.asarray((maps * vectors[:, None]).sum(axis=2), np.float32)
