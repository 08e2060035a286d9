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

ALGORITHM = 2  # raise it when the same photographs and points come to be aligned otherwise
# levels of the pyramid, one after another; the second way is for what does not fit after the first
_WAYS = ((1, 0), (2, 1, 0))
_RADIUS = 5  # pixels of a patch each way, at every level
_FARTHEST = 6.0  # pixels that a point may move; no detector errs by more
_FARTHEST_AT_A_LEVEL = 3.0  # pixels of that level
_LEAST_CORRELATION = 0.7  # of patches that show the same
_ITERATIONS = 6
_STILL = 0.03  # pixels: a smaller step is a point's last
_CONVERGED = 0.1  # pixels: the last step of a point that has settled
_NEIGHBOURS = 12  # matches that tell an affine map
_ROUNDS = 5  # of its weights
_ONE_KD_TREE, _EXACT = 4, -1  # of FLANN
_STIFFNESS = 9.0  # square pixels: weight of the identity beside them
_STRETCH = 2.5  # most that an affine map may magnify or shrink
_AT_ONCE = 2048  # points whose patches are in memory


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
    if not count:
        return np.empty((0, 0), np.int64)
    points = np.ascontiguousarray(points, np.float32)
    tree = cv2.flann.Index(points, {"algorithm": _ONE_KD_TREE})
    return np.asarray(tree.knnSearch(points, count, params={"checks": _EXACT})[0], np.int64)


def local_affines(first: Floats, second: Floats, near: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
    """How the surroundings of a match are mapped, told by the matches next to it.

    Args:
        first, second: (M, 2) matched points.
        near: (R, K) which matches are next to each of the rows.
        rows: (R,) the matches asked for.

    Returns:
        (R, 2, 2) second from first: least squares, weighted by 1 / residual; the identity where that makes no sense.
    """
    x, y = ((points[near] - points[rows, None]).transpose(2, 0, 1) for points in (first, second))  # (2, R, K) each
    products = [[x[i] * x[j] for j in (0, 1)] for i in (0, 1)], [[x[i] * y[j] for j in (0, 1)] for i in (0, 1)]
    identity = np.eye(2, dtype=np.float32)
    weights = np.ones(near.shape, np.float32)
    transposed = np.broadcast_to(identity, (len(rows), 2, 2))
    for _ in range(_ROUNDS):
        within, across = (
            np.array([[np.einsum("rk,rk->r", one, weights) for one in row] for row in product]).transpose(2, 0, 1)
            + _STIFFNESS * identity
            for product in products
        )
        transposed = _inverse(within) @ across
        (a, b), (c, d) = transposed.transpose(1, 2, 0)[..., None]
        weights = 1 / np.maximum(np.hypot(x[0] * a + x[1] * c - y[0], x[0] * b + x[1] * d - y[1]), 1)
    maps = np.array(transposed.transpose(0, 2, 1), np.float32)
    # singular values: their squares have the sum |A|^2 and the product det^2
    total, determinant = (maps**2).sum(axis=(1, 2)), np.linalg.det(maps)
    apart = np.sqrt(np.maximum(total**2 - 4 * determinant**2, 0))
    least = np.sqrt(np.maximum(total - apart, 0) / 2)
    maps[(np.sqrt((total + apart) / 2) > _STRETCH) | (least < 1 / _STRETCH) | (determinant < 0)] = identity
    return maps


def _fit(
    image_a: Floats, image_b: Floats, first: Floats, second: Floats, affines: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """(M, 2) offsets of the second points at one level, and whether to believe them (M,)."""
    side = 2 * _RADIUS + 1
    patch = _sample(image_a, first, _inverse(affines) @ _grid(_RADIUS + 1)).reshape(-1, side + 2, side + 2)
    slopes = np.stack((patch[:, 1:-1, 2:] - patch[:, 1:-1, :-2], patch[:, 2:, 1:-1] - patch[:, :-2, 1:-1]), axis=1) / 2
    grid = _grid(_RADIUS)
    weights = np.exp(-(grid**2).sum(axis=0) * (2 / _RADIUS**2)).astype(np.float32)
    weights /= weights.sum()
    template, contrast = _standardised(patch[:, 1:-1, 1:-1].reshape(-1, side * side), weights)
    # slopes of the standardised patch: what brightness and contrast explain is taken out
    slopes = slopes.reshape(-1, 2, side * side) / contrast[:, None, None]
    slopes -= (slopes @ weights)[..., None]
    slopes -= ((slopes * template[:, None]) @ weights)[..., None] * template[:, None]
    weighted = slopes * weights
    towards = -_inverse(weighted @ slopes.transpose(0, 2, 1) + 1e-4 * np.eye(2, dtype=np.float32)) @ weighted

    offsets, step = np.zeros_like(second), np.zeros_like(second)
    seen = _standardised(_sample(image_b, second, grid), weights)[0]
    before = (seen * template) @ weights
    moving = np.arange(len(second))
    for _ in range(_ITERATIONS):
        wrong = seen[moving] - template[moving]
        step[moving] = np.einsum("mik,mk->mi", towards[moving], wrong).clip(-1, 1)
        offsets[moving] += step[moving]
        seen[moving] = _standardised(_sample(image_b, (second + offsets)[moving], grid), weights)[0]
        moving = moving[np.abs(step[moving]).max(axis=1) > _STILL]
        if not len(moving):
            break
    correlation = (seen * template) @ weights
    near = np.linalg.norm(offsets, axis=1) <= _FARTHEST_AT_A_LEVEL
    settled = np.linalg.norm(step, axis=1) <= _CONVERGED
    return offsets, near & settled & (correlation >= np.maximum(before, _LEAST_CORRELATION))


def _grid(radius: int) -> Floats:
    """(2, (2r + 1)^2) x and y around a centre, row by row."""
    along = np.arange(-radius, radius + 1, dtype=np.float32)
    return np.stack(np.meshgrid(along, along)).reshape(2, -1)


def _sample(image: Floats, centres: Floats, around: Floats) -> Floats:
    """(M, K): cubic interpolation around (M, 2) centres at (2, K), or (M, 2, K), x and y; beyond the edge, the edge."""
    x, y = (centres[:, axis, None] + around[..., axis, :] for axis in (0, 1))
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _inverse(maps: Floats) -> Floats:
    """Of (M, 2, 2); faster than LAPACK, matrix by matrix. NaN or infinite where there is none."""
    (a, b), (c, d) = maps.transpose(1, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.stack((d, -b, -c, a), axis=1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None])


def _standardised(patches: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """(M, K) of mean 0 and deviation 1 under the weights (K,), and the deviations (M,) they had."""
    patches = patches - (patches @ weights)[:, None]
    contrast = np.sqrt(patches**2 @ weights) + np.float32(1e-3)
    return patches / contrast[:, None], contrast
