"""Where a point of one image is in another, more exactly than a detector says: image patches are aligned.

A detector decides on each image alone, and errs a fifth of a pixel; two patches that show the same thing fit to a tenth
of that. The patch of the first image is warped as the matches around it say (an affine map), and moved over the second
by the inverse compositional algorithm of Lucas and Kanade (Baker & Matthews, "Lucas-Kanade 20 Years On", IJCV 2004),
for a translation, with brightness and contrast taken out; from half the size to the whole, and where nothing fits, as
in blurred pictures, from a quarter, which sees farther.

Photographs are compared at the network's scale, before the EXIF orientation. Within an array of pixels, the
centre of the top-left one is at (0, 0) here.
"""

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.compiled import fastest
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import resize
from sfm_match.refine import compiled_alignment
from sfm_match.refine.compiled_alignment import Floats, Limits, Smoothness

Pyramid = tuple[NDArray[np.uint8] | Floats, ...]  # (H, W) grey, its half and its quarter

ALGORITHM = 3  # raise it when the same photographs and points come to be aligned otherwise
# levels of the pyramid, one after another; the second way is for what does not fit after the first
_WAYS = ((1, 0), (2, 1, 0))
_RADIUS = 5  # pixels of a patch each way, at every level
_FARTHEST = 6.0  # pixels that a point may move; no detector errs by more
_NEIGHBOURS = 12  # matches that tell an affine map
_ONE_KD_TREE, _EXACT = 4, -1  # of FLANN
_SMOOTHNESS = Smoothness(rounds=5, stiffness=9.0, stretch=2.5)
_AT_ONCE = 2048  # points whose patches are in memory; with fewer, threads wait for one another between numpy calls


_FINE = Limits(
    cubic=True,
    iterations=7,
    still=0.04,
    damping=1e-4,
    least_contrast=1e-3,
    farthest=3.0,
    settled=0.1,
    least_correlation=0.7,
)
_COARSE = replace(_FINE, cubic=False, iterations=6, still=0.1)  # for the fine level to begin from


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

    def in_floats(self) -> "Seen":
        """As `align` works with it: made once for several pairs; four times as large."""
        return Seen(tuple(np.asarray(level, np.float32) for level in self.levels), self.scale)


def see(raw: NDArray[np.uint8], geometry: ImageGeometry) -> Seen:
    """(H, W, 3) RGB raw pixels, at any scale from the network's up."""
    grey = np.asarray(cv2.cvtColor(raw, cv2.COLOR_RGB2GRAY), np.uint8)  # first: then there is less to shrink
    return Seen(pyramid(resize(grey, geometry.raw_network_size, cv2.INTER_AREA)), geometry.raw_scale)


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
    moved, fits = second.copy(), np.zeros(len(second), bool)
    affines = np.empty((len(second), 2, 2), np.float32)
    near, kernel = neighbours(first), fastest()
    for way in _WAYS:
        tried = np.flatnonzero(~fits)
        for level in way if len(tried) else ():
            # again, now that the points are better known
            limits = _COARSE if level else _FINE
            affines[tried] = local_affines(first, moved, near[tried], tried)
            scale = np.float32(2**level)
            for start in range(0, len(tried), _AT_ONCE):
                part = tried[start : start + _AT_ONCE]
                given = levels_a[level], levels_b[level], first[part] / scale, moved[part] / scale, affines[part]
                found, good = (
                    _fit(*given, limits)
                    if kernel is None
                    else compiled_alignment.fit(kernel, *given, _weights(), limits)
                )
                there = moved[part] + found * scale
                good &= np.square(there - second[part]).sum(axis=1) <= _FARTHEST**2
                moved[part[good]] = there[good]
                fits[part] |= good
    return Aligned(moved - second, fits, affines)


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
    kernel = fastest()
    if kernel is not None:
        return compiled_alignment.local_affines(kernel, first, second, near, rows, _SMOOTHNESS)
    maps = np.empty((len(rows), 2, 2), np.float32)
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        maps[part] = _local_affines(first, second, near[part], rows[part])
    return maps


def _local_affines(first: Floats, second: Floats, near: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
    # (K, R): sums go over whole rows. A match that the search did not find is the one itself, which says nothing.
    near = np.where((near >= 0) & (near < len(first)), near, rows[:, None]).T.copy()
    x, y, u, v = (points[:, axis][near] - points[rows, axis] for points in (first, second) for axis in (0, 1))
    products = np.stack((x * x, x * y, y * y, x * u, y * u, x * v, y * v))
    stiffness = np.array((1, 0, 1, 1, 0, 0, 1), np.float32)[:, None] * np.float32(_SMOOTHNESS.stiffness)
    weights = np.ones(near.shape, np.float32)
    for _ in range(_SMOOTHNESS.rounds):
        xx, xy, yy, xu, yu, xv, yv = np.einsum("pkr,kr->pr", products, weights) + stiffness
        determinant = xx * yy - xy * xy  # 81 at least
        a, b = (yy * xu - xy * yu) / determinant, (xx * yu - xy * xu) / determinant
        c, d = (yy * xv - xy * yv) / determinant, (xx * yv - xy * xv) / determinant
        weights = 1 / np.sqrt(np.maximum((a * x + b * y - u) ** 2 + (c * x + d * y - v) ** 2, 1))
    maps = np.stack((a, b, c, d), axis=1).reshape(-1, 2, 2)
    # singular values: their squares have the sum |A|^2 and the product det^2
    total, determinant = a * a + b * b + c * c + d * d, a * d - b * c
    apart = np.sqrt(np.maximum(total**2 - 4 * determinant**2, 0))
    least = np.sqrt(np.maximum(total - apart, 0) / 2)
    stretch = _SMOOTHNESS.stretch
    tame = (np.sqrt((total + apart) / 2) <= stretch) & (least >= 1 / stretch) & (determinant >= 0)
    maps[~tame] = np.eye(2, dtype=np.float32)
    return maps


def _fit(
    image_a: Floats, image_b: Floats, first: Floats, second: Floats, affines: Floats, limits: Limits
) -> tuple[Floats, NDArray[np.bool_]]:
    """As `compiled_alignment.fit`, where nothing was compiled or the processor has no wide vectors."""
    grid, weights = _grid(_RADIUS), _weights()
    interpolation = cv2.INTER_CUBIC if limits.cubic else cv2.INTER_LINEAR
    warped = _inverse(affines).transpose(1, 0, 2) @ _grid(_RADIUS + 1)  # (2, M, K)
    questions = _questions(_sample(image_a, first.T, warped, interpolation), weights, limits)
    places = second.T.copy(order="C")  # (2, M) like all that is by coordinate here: sums go over whole rows
    last, correlation = np.zeros_like(places), np.zeros(len(second), np.float32)
    moving = np.arange(len(second))
    for number in range(limits.iterations):
        seen = _sample(image_b, places[:, moving], grid[:, None], interpolation)
        seen -= (seen @ weights)[:, None]
        contrast = np.sqrt(np.square(seen) @ weights) + np.float32(limits.least_contrast)
        answers = np.einsum("mik,mk->im", questions, seen) / contrast
        correlation[moving], steps = answers[0], answers[1:].clip(-1, 1)
        if not number:
            before = correlation.copy()
        last[:, moving] = steps
        places[:, moving] += steps
        going = np.flatnonzero(np.maximum(*np.abs(steps)) > limits.still)
        if not len(going):
            break
        if len(going) < len(moving):
            moving, questions = moving[going], questions[going]
    offsets = places - second.T
    near = _within(offsets, limits.farthest) & _within(last, limits.settled)
    return offsets.T, near & (correlation >= np.maximum(before, limits.least_correlation))


def _within(vectors: Floats, most: float) -> NDArray[np.bool_]:
    """(M,) which of (2, M) are no longer."""
    return np.asarray(vectors[0] ** 2 + vectors[1] ** 2 <= most**2)


def _questions(patches: Floats, weights: Floats, limits: Limits) -> Floats:
    """(M, (2r + 3)^2) of the first image -> (M, 3, (2r + 1)^2), to multiply patches of mean 0 and deviation 1 with.

    The first product tells how a patch correlates with the template, the others are the step in x and y.
    """
    side = 2 * _RADIUS + 3
    patches = patches.reshape(-1, side, side)
    template = patches[:, 1:-1, 1:-1].reshape(len(patches), -1)
    template -= (template @ weights)[:, None]
    contrast = np.sqrt(np.square(template) @ weights) + np.float32(limits.least_contrast)
    template /= contrast[:, None]
    questions = np.empty((len(patches), 3, template.shape[1]), np.float32)
    weighted = np.multiply(template, weights, out=questions[:, 0])
    slopes = patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2], patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]
    x, y = (slope.reshape(template.shape) for slope in slopes)
    for slope in (x, y):
        # of the standardised patch; what brightness and contrast explain is taken out
        slope /= (2 * contrast)[:, None]
        slope -= (slope @ weights)[:, None]
        slope -= np.einsum("mk,mk->m", slope, weighted)[:, None] * template
    damping = np.float32(limits.damping)
    xx, xy, yy = np.square(x) @ weights + damping, (x * y) @ weights, np.square(y) @ weights + damping
    determinant = xx * yy - xy**2
    x *= weights
    y *= weights
    xx, xy, yy = (value[:, None] for value in (xx / determinant, xy / determinant, yy / determinant))
    np.subtract(xy * y, yy * x, out=questions[:, 1])
    np.subtract(xy * x, xx * y, out=questions[:, 2])
    return questions


@cache
def _weights() -> Floats:
    """((2r + 1)^2,) of a patch's pixels: a Gaussian; their sum is 1."""
    weights = np.exp(-(_grid(_RADIUS) ** 2).sum(axis=0) * (2 / _RADIUS**2))
    weights = np.asarray(weights / weights.sum(), np.float32)
    weights.flags.writeable = False  # they are shared
    return weights


@cache
def _grid(radius: int) -> Floats:
    """(2, (2r + 1)^2) x and y around a centre, row by row."""
    along = np.arange(-radius, radius + 1, dtype=np.float32)
    grid = np.stack(np.meshgrid(along, along)).reshape(2, -1)
    grid.flags.writeable = False  # it is shared
    return grid


def _sample(image: Floats, centres: Floats, around: Floats, interpolation: int) -> Floats:
    """(M, K) around centres (2, M), x and y, at (2, M, K) or (2, 1, K); beyond the edge, the edge."""
    x, y = (centre[:, None] + grid for centre, grid in zip(centres, around, strict=True))
    return np.asarray(cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _inverse(maps: Floats) -> Floats:
    """Of (M, 2, 2); faster than LAPACK, matrix by matrix. NaN or infinite where there is none."""
    (a, b), (c, d) = maps.transpose(1, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.stack((d, -b, -c, a), axis=1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None])
