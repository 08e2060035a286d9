"""`alignment.c`: image patches aligned by Lucas-Kanade. Where it was not compiled, `patch_alignment` does the same with
numpy and OpenCV, in several times as long.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfm_match.compiled import function

Floats = NDArray[np.float32]
_LANES = 16  # neighbours at most; as in alignment.c


@dataclass(frozen=True)
class Limits:
    """What `fit` goes by."""

    cubic: bool  # interpolation; else linear
    iterations: int  # at most
    still: float  # pixels: a smaller step is a point's last
    damping: float  # of steps where a patch is flat
    least_contrast: float
    farthest: float  # pixels that a point may move
    settled: float  # pixels: the last step of a point that has settled
    least_correlation: float  # of patches that show the same


class _Image(ctypes.Structure):
    """As in the C file."""

    _fields_ = (("pixels", ctypes.c_void_p), ("height", ctypes.c_size_t), ("width", ctypes.c_size_t))


class _Patches(ctypes.Structure):
    """As in the C file."""

    _fields_ = (
        ("image_a", _Image),
        ("image_b", _Image),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("affines", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("cubic", ctypes.c_int32),
        ("iterations", ctypes.c_int32),
        ("still", ctypes.c_float),
        ("damping", ctypes.c_float),
        ("least_contrast", ctypes.c_float),
        ("farthest", ctypes.c_float),
        ("settled", ctypes.c_float),
        ("least_correlation", ctypes.c_float),
        ("offsets", ctypes.c_void_p),
        ("fits", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Smoothness:
    """What `local_affines` goes by."""

    rounds: int  # of the weights
    stiffness: float  # square pixels: weight of the identity beside the matches
    stretch: float  # most that an affine map may magnify or shrink


class _Surroundings(ctypes.Structure):
    """As in the C file."""

    _fields_ = (
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("near", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("matches", ctypes.c_size_t),
        ("count", ctypes.c_size_t),
        ("neighbours", ctypes.c_size_t),
        ("rounds", ctypes.c_int32),
        ("stiffness", ctypes.c_float),
        ("stretch", ctypes.c_float),
        ("maps", ctypes.c_void_p),
    )


def local_affines(
    kernel: int,
    first: Floats,
    second: Floats,
    near: NDArray[np.int64],
    rows: NDArray[np.int64],
    smoothness: Smoothness,
) -> Floats:
    """As `patch_alignment.local_affines`. Other threads run meanwhile.

    Args:
        kernel: a number of `sfm_match.compiled.kernels`.
        first, second: (M, 2) matched points.
        near: (R, K) which matches are next to each of the rows; K is 16 at most.
        rows: (R,) the matches asked for.
        smoothness: how much the matches say.

    Raises:
        ValueError: K is more.
    """
    if near.shape[1] > _LANES:
        raise ValueError(f"{near.shape[1]} neighbours, at most {_LANES} are looked at")
    points = [np.ascontiguousarray(array, np.float32) for array in (first, second)]
    places = [np.ascontiguousarray(array, np.int64) for array in (near, rows)]
    maps = np.empty((len(rows), 2, 2), np.float32)
    problem = _Surroundings(
        *(array.ctypes.data for array in points),
        *(array.ctypes.data for array in places),
        len(first),
        *near.shape,
        *(smoothness.rounds, smoothness.stiffness, smoothness.stretch),
        maps.ctypes.data,
    )
    function("local_affines", _Surroundings, None)(kernel, ctypes.byref(problem))
    return maps


def fit(
    kernel: int,
    image_a: Floats,
    image_b: Floats,
    first: Floats,
    second: Floats,
    affines: Floats,
    weights: Floats,
    limits: Limits,
) -> tuple[Floats, NDArray[np.bool_]]:
    """(M, 2) offsets of the second points, to where the patches fit, and whether to believe them (M,).

    Other threads run meanwhile.

    Args:
        kernel: a number of `sfm_match.compiled.kernels`.
        image_a, image_b: (H, W) float32.
        first, second: (M, 2) matched points, pixels; the centre of the top-left one is at (0, 0).
        affines: (M, 2, 2) second from first.
        weights: (121,) of a patch's pixels, 11 x 11 by rows; their sum is 1.
        limits: when a point has come to its end, and what is believed.
    """
    images = [np.ascontiguousarray(image, np.float32) for image in (image_a, image_b)]
    given = [np.ascontiguousarray(array, np.float32) for array in (first, second, affines, weights)]
    offsets, fits = np.empty((len(first), 2), np.float32), np.empty(len(first), bool)
    problem = _Patches(
        *(_Image(image.ctypes.data, *image.shape) for image in images),
        *(array.ctypes.data for array in given),
        len(first),
        *(limits.cubic, limits.iterations, limits.still, limits.damping, limits.least_contrast),
        *(limits.farthest, limits.settled, limits.least_correlation),
        *(offsets.ctypes.data, fits.ctypes.data),
    )
    function("patches_fit", _Patches, None)(kernel, ctypes.byref(problem))
    return offsets, fits
