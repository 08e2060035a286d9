"""Where a point of one image is in another, more exactly than a detector says: patches laid over one another.

A detector decides on each image alone, and errs a fifth of a pixel; two patches that show the same thing fit to a tenth
of that. The patch of the first image is warped as the matches around it say (an affine map), and moved over the second
by the inverse compositional algorithm of Lucas and Kanade (Baker & Matthews, "Lucas-Kanade 20 Years On", IJCV 2004),
for a translation, with brightness and contrast taken out; from half the size to the whole, and where nothing fits, as
in blurred pictures, from a quarter, which sees farther.

Photographs are compared at the network's scale, before the EXIF orientation. Within an array of pixels, the
centre of the top-left one is at (0, 0) here.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import resize

Floats = NDArray[np.float32]
Pyramid = tuple[NDArray[np.uint8], ...]  # (H, W) grey, its half and its quarter

ALGORITHM = 1  # raise it when the same photographs and points come to be aligned otherwise
# levels of the pyramid, one after another; the second way is for what does not fit after the first
_WAYS = ((1, 0), (2, 1, 0))
_RADIUS = 5  # pixels of a patch each way, at every level
_FARTHEST = 6.0  # pixels that a point may move; no detector errs by more
_FARTHEST_AT_A_LEVEL = 3.0  # pixels of that level
_LEAST_CORRELATION = 0.7  # of patches that show the same
_ITERATIONS = 6
_CONVERGED = 0.1  # pixels: the last step of a point that has settled
_NEIGHBOURS = 12  # matches that tell an affine map
_ROUNDS = 5  # of its weights
_STIFFNESS = 9.0  # square pixels: weight of the identity beside them
_STRETCH = 2.5  # most that an affine map may magnify or shrink
_AT_ONCE = 2048  # points whose patches are in memory
_ROWS = 256  # of distances between points


@dataclass(frozen=True)
class Aligned:
    """M points of a second image, each with that of a first one it belongs to."""

    offsets: Floats  # (M, 2) pixels of the second image, to where the patches fit; 0 where they do not
    fits: NDArray[np.bool_]  # (M,)
    affines: Floats  # (M, 2, 2) second from first


@dataclass(frozen=True)
class Seen:
    """A photograph as the network saw it, but grey and not turned upright."""

    levels: Pyramid
    scale: Floats  # (2,) its pixels per raw pixel


def see(raw: NDArray[np.uint8], geometry: ImageGeometry) -> Seen:
    """(H, W, 3) RGB raw pixels, at any scale from the network's up."""
    small = resize(raw, geometry.raw_network_size, cv2.INTER_AREA)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    return Seen(pyramid(grey), geometry.raw_scale)


def align_photographs(a: Seen, b: Seen, first: Floats, second: Floats) -> Aligned:
    """As `align`, in pixels of the network, for points (M, 2) in raw pixels (the centre of the top-left one at 0.5)."""
    return align(a.levels, b.levels, first * a.scale - 0.5, second * b.scale - 0.5)


def pyramid(grey: NDArray[np.uint8]) -> Pyramid:
    """(H, W) to what `align` takes."""
    half = np.asarray(cv2.pyrDown(grey), np.uint8)
    return grey, half, np.asarray(cv2.pyrDown(half), np.uint8)


def align(image_a: Pyramid, image_b: Pyramid, first: Floats, second: Floats) -> Aligned:
    """Moves the points of the second image to where the patches around those of the first one fit.

    Args:
        image_a, image_b: of `pyramid`.
        first, second: (M, 2) matched points.
    """
    levels_a, levels_b = ([np.asarray(level, np.float32) for level in image] for image in (image_a, image_b))
    offsets, fits = np.zeros_like(second), np.zeros(len(second), bool)
    affines = np.empty((len(second), 2, 2), np.float32)
    near = neighbours(first)
    for way in _WAYS:
        tried = np.flatnonzero(~fits)
        for level in way if len(tried) else ():
            # again, now that the points are better known
            affines[tried] = local_affines(first, second + offsets, near[tried], tried)
            scale = np.float32(2**level)
            for start in range(0, len(tried), _AT_ONCE):
                part = tried[start : start + _AT_ONCE]
                at = (second + offsets)[part] / scale
                found, good = _fit(levels_a[level], levels_b[level], first[part] / scale, at, affines[part])
                good &= np.linalg.norm(offsets[part] + found * scale, axis=1) <= _FARTHEST
                offsets[part[good]] += found[good] * scale
                fits[part] |= good
    return Aligned(offsets, fits, affines)


def neighbours(points: Floats) -> NDArray[np.int64]:
    """(M, K) the nearest of (M, 2) points to each, itself among them."""
    count = min(_NEIGHBOURS, len(points))
    near = np.empty((len(points), count), np.int64)
    centred = points - points.mean(axis=0) if len(points) else points  # float32 holds squares of small numbers better
    for start in range(0, len(points), _ROWS):
        part = slice(start, start + _ROWS)
        distance = (centred**2).sum(axis=1) - 2 * centred[part] @ centred.T
        near[part] = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return near


def local_affines(first: Floats, second: Floats, near: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
    """How the surroundings of a match are mapped, told by the matches next to it.

    Args:
        first, second: (M, 2) matched points.
        near: (R, K) which matches are next to each of the rows.
        rows: (R,) the matches asked for.

    Returns:
        (R, 2, 2) second from first: least squares, weighted by 1 / residual; the identity where that makes no sense.
    """
    x, y = first[near] - first[rows, None], second[near] - second[rows, None]
    identity = np.eye(2, dtype=np.float32)
    weights = np.ones(near.shape, np.float32)
    transposed = np.broadcast_to(identity, (len(rows), 2, 2))
    for _ in range(_ROUNDS):
        weighted = (x * weights[..., None]).transpose(0, 2, 1)
        transposed = np.linalg.solve(weighted @ x + _STIFFNESS * identity, weighted @ y + _STIFFNESS * identity)
        weights = 1 / np.maximum(np.linalg.norm(x @ transposed - y, axis=2), 1)
    maps = np.array(transposed.transpose(0, 2, 1), np.float32)
    stretch = np.linalg.svd(maps, compute_uv=False)
    maps[(stretch[:, 0] > _STRETCH) | (stretch[:, 1] < 1 / _STRETCH) | (np.linalg.det(maps) < 0)] = identity
    return maps


def _fit(
    image_a: Floats, image_b: Floats, first: Floats, second: Floats, affines: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """(M, 2) offsets of the second points at one level, and whether to believe them (M,)."""
    side = 2 * _RADIUS + 1
    wide = _grid(_RADIUS + 1) @ np.linalg.inv(affines).transpose(0, 2, 1)
    patch = _sample(image_a, first[:, None] + wide).reshape(-1, side + 2, side + 2)
    slopes = np.stack((patch[:, 1:-1, 2:] - patch[:, 1:-1, :-2], patch[:, 2:, 1:-1] - patch[:, :-2, 1:-1]), axis=1) / 2
    grid = _grid(_RADIUS)
    weights = np.exp(-(grid**2).sum(axis=1) * (2 / _RADIUS**2)).astype(np.float32)
    weights /= weights.sum()
    template, contrast = _standardised(patch[:, 1:-1, 1:-1].reshape(-1, side * side), weights)
    # slopes of the standardised patch: what brightness and contrast explain is taken out
    slopes = slopes.reshape(-1, 2, side * side) / contrast[:, None, None]
    slopes -= (slopes @ weights)[..., None]
    slopes -= ((slopes * template[:, None]) @ weights)[..., None] * template[:, None]
    weighted = slopes * weights
    inverse = np.linalg.inv(weighted @ slopes.transpose(0, 2, 1) + 1e-4 * np.eye(2, dtype=np.float32))

    offsets, step = np.zeros_like(second), np.zeros_like(second)
    seen = _standardised(_sample(image_b, second[:, None] + grid), weights)[0]
    before = (seen * template) @ weights
    for _ in range(_ITERATIONS):
        step = -(inverse @ (weighted @ (seen - template)[..., None]))[..., 0].clip(-1, 1)
        offsets += step
        seen = _standardised(_sample(image_b, (second + offsets)[:, None] + grid), weights)[0]
    correlation = (seen * template) @ weights
    near = np.linalg.norm(offsets, axis=1) <= _FARTHEST_AT_A_LEVEL
    settled = np.linalg.norm(step, axis=1) <= _CONVERGED
    return offsets, near & settled & (correlation >= np.maximum(before, _LEAST_CORRELATION))


def _grid(radius: int) -> Floats:
    """((2r + 1)^2, 2) positions around a centre, row by row."""
    along = np.arange(-radius, radius + 1, dtype=np.float32)
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


def _sample(image: Floats, at: Floats) -> Floats:
    """Cubic interpolation at (M, K, 2); beyond the edge, the edge."""
    x, y = (np.ascontiguousarray(at[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _standardised(patches: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """(M, K) of mean 0 and deviation 1 under the weights (K,), and the deviations (M,) they had."""
    patches = patches - (patches @ weights)[:, None]
    contrast = np.sqrt(patches**2 @ weights) + np.float32(1e-3)
    return patches / contrast[:, None], contrast
