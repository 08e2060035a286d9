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

from sfm_match.compiled import fastest
from sfm_match.refine.compiled_tracks import settled

Floats = NDArray[np.float32]
Keypoints = NDArray[np.integer]

_ROUNDS = 40
_STILL = 0.002  # pixels: steps below it are the last
_RESTING = 0.8  # of the relations that are left; with fewer at work, the others are left out
_NOISE = 0.1  # pixels: disagreement beyond it weighs by its size, not by the square


@dataclass(frozen=True)
class Relations:
    """What aligned pairs say of keypoints: `second` should be at its place + offset, if `first` is at its own."""

    first: Keypoints  # (E,) counted over all images
    second: Keypoints  # (E,)
    offsets: Floats  # (E, 2) pixels of the second's image, at the network's scale
    affines: Floats  # (E, 2, 2) second from first, of small movements


def join(parts: Iterable[Relations]) -> Relations:
    """All of them."""
    none = np.empty(0, np.int64)
    empty = Relations(none, none, np.empty((0, 2), np.float32), np.empty((0, 2, 2), np.float32))
    fields = zip(*(vars(part).values() for part in (empty, *parts)), strict=True)
    return Relations(*(np.concatenate(values) for values in fields))


def optimize_tracks(
    relations: Relations, track: Keypoints, held: NDArray[np.bool_] | None = None
) -> tuple[Keypoints, Floats]:
    """Moves of the keypoints of whole tracks that fit the relations best.

    A keypoint that moves by m takes what it is aligned with along by A m. The sum of the distances that are left is
    made small by reweighted least squares.

    Args:
        relations: of the tracks, all of them.
        track: (count,) the first keypoint of the track of each.
        held: (count,) keypoints that stay.

    Returns:
        (K,) keypoints that have relations, ascending; (K, 2) moves, pixels of their images, as the offsets are.
    """
    of_relation = track[relations.first]
    order = np.argsort(of_relation, kind="stable")
    mine, of_relation = Relations(*(values[order] for values in vars(relations).values())), of_relation[order]
    del relations, order  # there are many, and what follows takes as much again
    keypoints = np.sort(np.concatenate((mine.first, mine.second)))
    keypoints = keypoints[np.diff(keypoints, prepend=-1) > 0]  # each once; `np.unique` takes many times the memory
    first, second = (np.searchsorted(keypoints, ends) for ends in (mine.first, mine.second))
    mine = Relations(first, second, mine.offsets, mine.affines)
    of_track = np.empty(len(keypoints), np.int64)
    of_track[first] = of_track[second] = np.searchsorted(keypoints, of_relation)
    fixed = np.zeros(len(keypoints), bool) if held is None else held[keypoints]
    kernel = fastest()
    if kernel is None:
        return keypoints, _settled(mine, fixed, of_track)
    limits = _ROUNDS, _STILL, _RESTING, _NOISE
    return keypoints, settled(kernel, first, second, mine.offsets, mine.affines, fixed, of_track, limits)


def _settled(relations: Relations, fixed: NDArray[np.bool_], track: Keypoints) -> Floats:
    """Each keypoint goes half way to where its relations want it, at once with all others, again and again.

    A track rests when none of its keypoints (`track` says whose they are) makes a step any more. As
    `compiled_tracks.settled`, where nothing was compiled or the processor has no wide vectors.
    """
    count = len(fixed)
    moves = np.zeros((2, count), np.float32)  # by coordinate, as all here: sums go over whole rows
    first, second, offsets = relations.first, relations.second, relations.offsets.T.copy()
    there = relations.affines.reshape(-1, 4).T.copy()  # (4, E)
    back = np.linalg.inv(relations.affines).reshape(-1, 4).T.copy()
    for _ in range(_ROUNDS):
        left = _times(there, moves[:, first]) + offsets - moves[:, second]
        weights = 1 / np.maximum(np.sqrt(left[0] ** 2 + left[1] ** 2), _NOISE)
        total = np.bincount(first, weights, count) + np.bincount(second, weights, count)
        forth = left * weights
        pulled = [
            np.bincount(second, to_second, count) - np.bincount(first, to_first, count)
            for to_second, to_first in zip(forth, _times(back, forth), strict=True)
        ]
        steps = np.divide(pulled, total, out=np.zeros((2, count)), where=total > 0)
        steps[:, fixed] = 0
        moves += (steps / 2).astype(np.float32)
        moving = np.zeros(count, bool)  # by the number of a track, which is one of a keypoint
        moving[track[np.maximum(*np.abs(steps)) >= _STILL]] = True
        if not moving.any():
            break
        going = moving[track[first]]
        if going.mean() < _RESTING:
            first, second = first[going], second[going]
            offsets, there, back = offsets[:, going], there[:, going], back[:, going]
    return moves.T


def _times(maps: Floats, vectors: Floats) -> Floats:
    """(4, E), row by row, times (2, E)."""
    return np.stack((maps[0] * vectors[0] + maps[1] * vectors[1], maps[2] * vectors[0] + maps[3] * vectors[1]))
