"""`tracks.c`: keypoints of tracks brought to agree. Without it, `track_optimization` does the same with numpy."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from sfm_match.compiled import function

Floats = NDArray[np.float32]


class _Tracks(ctypes.Structure):
    """As in the C file."""

    _fields_ = (
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("affines", ctypes.c_void_p),
        ("track", ctypes.c_void_p),
        ("fixed", ctypes.c_void_p),
        ("relations", ctypes.c_size_t),
        ("keypoints", ctypes.c_size_t),
        ("rounds", ctypes.c_int32),
        ("still", ctypes.c_float),
        ("resting", ctypes.c_float),
        ("noise", ctypes.c_float),
        ("moves", ctypes.c_void_p),
        ("back", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("at_work", ctypes.c_void_p),
        ("moving", ctypes.c_void_p),
    )


def settled(
    kernel: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    offsets: Floats,
    affines: Floats,
    fixed: NDArray[np.bool_],
    track: NDArray[np.int64],
    limits: tuple[int, float, float, float],
) -> Floats:
    """(K, 2) moves of the keypoints, pixels. Other threads run meanwhile.

    Args:
        kernel: a number of `sfm_match.compiled.kernels`.
        first, second: (E,) keypoints that were aligned, counted from 0 to K.
        offsets: (E, 2) pixels: the second should be at its place + offset, if the first is at its own.
        affines: (E, 2, 2) second from first, of small movements.
        fixed: (K,) keypoints that stay.
        track: (K,) a keypoint of the track of each.
        limits: rounds, at most; a step that is a keypoint's last, pixels; the share of the relations below which those
            that rest are left out; disagreement, in pixels, beyond which it weighs by its size.
    """
    count = len(track)
    indices = [np.ascontiguousarray(array, np.int64) for array in (first, second)]
    values = [np.ascontiguousarray(array, np.float32) for array in (offsets, affines)]
    numbers, stays = np.ascontiguousarray(track, np.int64), np.ascontiguousarray(fixed, bool)
    moves, back, sums = np.zeros((count, 2), np.float32), np.empty((len(first), 4), np.float32), np.empty((count, 3))
    at_work, moving = np.empty(len(first), np.int64), np.empty(count, bool)
    problem = _Tracks(
        *(array.ctypes.data for array in indices),
        *(array.ctypes.data for array in values),
        numbers.ctypes.data,
        stays.ctypes.data,
        len(first),
        count,
        *limits,
        *(moves.ctypes.data, back.ctypes.data, sums.ctypes.data, at_work.ctypes.data, moving.ctypes.data),
    )
    function("tracks_settle", _Tracks, None)(kernel, ctypes.byref(problem))
    return moves
