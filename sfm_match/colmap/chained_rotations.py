"""Accepted pairs whose rotation a chain of much stronger pairs contradicts: their places look alike, and are not one.

Two streets with the same houses, which no view shows together, give pairs that agree with one another and with all that
is seen near them. But who walks from one to the other turns on the way: the chain of pairs along the walk says by how
much, and a pair that says something else is wrong. A pair is judged by pairs with twice its matches alone, so that what
connects the images stays.
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.partial_database import Source, points_of
from sfm_match.colmap.queries import matches_of

if TYPE_CHECKING:
    import pycolmap

_STRONGER = 2  # times the matches of a pair has each of a chain that judges it
_TOLERANCE = 10.0  # degrees that a pair and a chain may be apart
_OF_TURN = {True: 0.05, False: 0.3}  # and of what the chain turns, where focal lengths are known, or are guesses:
# with a wrong one, the rotation of every pair is too large, or too small, by such a share
_CLOSED = 3.0  # degrees that remain of the three rotations of a triangle
_TRIANGLES = 8  # of a pair, that are looked at
_FEW = 32  # matches that choose between the rotations of an essential matrix
_ENOUGH = 128  # matches that a rotation is fitted to
_AT_ONCE = 1024  # pairs
_FITS = 0.01  # radians from its epipolar plane, at most, of a match that fits: some pixels
_SCALES = np.geomspace(0.2, 0.003, 12)  # radians, of a robust fit that becomes stricter
_HALF = 0.5  # of the matches of a pair fit a rotation, or it is not theirs
_CACHED = 256  # images whose keypoints are held
_Floats = NDArray[np.float64]
_Rays = Callable[[int], _Floats]  # image -> (N, 3) of its keypoints in the camera's axes, z is 1


def turned_away(database: Path, inliers: Mapping[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Pairs that a chain of stronger ones contradicts: no rotation near that of the chain fits their matches.

    The rotation of one essential matrix proves nothing: of a planar scene, or of few matches, it may be any. A chain is
    of pairs whose rotations close triangles; and a pair that its own rotation speaks against is fitted anew.

    Args:
        database: as `import` leaves it, with essential matrices.
        inliers: accepted pairs of names, and how many matches each has.
    """
    import pycolmap

    names, found = list(inliers), set[tuple[str, str]]()
    with closing(sqlite3.connect(database)) as connection, pycolmap.Database.open(str(database)) as opened:
        source, order = Source.of(connection, inliers).strongest_first()
        # not those of all images: there may be hundreds of components
        numbers = np.unique(source.pairs).tolist()
        images = {number: opened.read_camera(opened.read_image(number).camera_id) for number in numbers}
        known = all(camera.has_prior_focal_length for camera in images.values())
        rays = lru_cache(_CACHED)(partial(_rays, connection, images))
        rotations = _rotations(source, rays)
        proven = _proven(source.pairs.tolist(), rotations)
        chains, joined = _Chains(), 0
        for number, (a, b) in enumerate(source.pairs.tolist()):
            while source.counts[joined] >= _STRONGER * source.counts[number]:
                link = rotations[joined]
                if link is not None and proven[joined]:
                    chains.join(int(source.pairs[joined, 0]), int(source.pairs[joined, 1]), link)
                joined += 1
            chained, own = chains.between(a, b), rotations[number]
            if chained is None or own is None:
                continue
            expected, turn = chained
            allowed = float(np.radians(_TOLERANCE) + _OF_TURN[known] * np.linalg.norm(turn))
            if _angle(own @ expected.T) > allowed and not _fit(*_seen(source, number, rays), expected, allowed):
                found.add(names[order[number]])
                proven[number] = False
    return found


def _rays(connection: sqlite3.Connection, images: "Mapping[int, pycolmap.Camera]", image: int) -> _Floats:
    points = points_of(connection, image).astype(np.float64)
    return np.concatenate((np.asarray(images[image].cam_from_img(points)), np.ones((len(points), 1))), axis=1)


def _rotations(source: Source, rays: _Rays) -> list[_Floats | None]:
    """Of each pair with an essential matrix, (3, 3) from the first camera's axes to the second's."""
    found: list[_Floats | None] = [None] * len(source.pairs)
    rows = enumerate(source.rows("data, E"))
    while some := list(islice(rows, _AT_ONCE)):
        numbers, matrices, seen = [], [], []
        for number, (a, b, (data, essential)) in some:
            matches, matrix = matches_of(data), np.frombuffer(essential or b"")
            if len(matrix) and np.isfinite(matrix).all() and len(matches):
                matches = matches[np.linspace(0, len(matches) - 1, _FEW).astype(np.int64)]
                numbers.append(number)
                matrices.append(matrix.reshape(3, 3))
                seen.append((rays(a)[matches[:, 0]], rays(b)[matches[:, 1]]))
        if numbers:
            rotations = _of_essential(np.array(matrices), *np.array(seen).swapaxes(0, 1))
            for number, rotation in zip(numbers, rotations, strict=True):
                found[number] = rotation
    return found


def _of_essential(matrices: _Floats, first: _Floats, second: _Floats) -> _Floats:
    """(P, 3, 3) rotations of essential matrices: of two, that with which most points are before both cameras.

    R. Hartley, A. Zisserman, Multiple View Geometry, 2nd edition, 9.6.2.

    Args:
        matrices: (P, 3, 3).
        first, second: (P, N, 3) of matches.
    """
    u, _, v = np.linalg.svd(matrices)
    u, v = (side * np.linalg.det(side)[:, None, None] for side in (u, v))
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    both = np.stack((u @ quarter @ v, u @ quarter.T @ v))  # (2, P, 3, 3)
    translation = u[:, None, :, 2]  # (P, 1, 3), or its opposite
    turned = first @ both.swapaxes(2, 3)  # (2, P, N, 3)
    normals = np.cross(turned, second)
    depth = (normals * np.cross(translation, second)).sum(axis=3), (normals * np.cross(translation, turned)).sum(axis=3)
    before = [((side * depth[0] > 0) & (side * depth[1] > 0)).sum(axis=2) for side in (1, -1)]
    better = np.argmax(np.maximum(*before), axis=0)
    return np.asarray(both[better, np.arange(len(both[0]))])


def _proven(pairs: list[list[int]], rotations: list[_Floats | None]) -> list[bool]:
    """Whether two triangles of each pair close, and most of those that were looked at, with the strongest others."""
    partners: dict[int, dict[int, _Floats]] = {}
    for (a, b), rotation in zip(pairs, rotations, strict=True):
        if rotation is not None:
            partners.setdefault(a, {})[b] = rotation
            partners.setdefault(b, {})[a] = rotation.T
    proven = []
    for (a, b), rotation in zip(pairs, rotations, strict=True):
        closed = looked = 0
        if rotation is not None:
            of_a, of_b = partners[a], partners[b]
            for third in islice((image for image in of_a if image in of_b), _TRIANGLES):
                looked += 1
                closed += _angle(of_b[third] @ rotation @ of_a[third].T) < np.radians(_CLOSED)
        proven.append(closed >= 2 and 2 * closed > looked)
    return proven


def _seen(source: Source, number: int, rays: _Rays) -> tuple[_Floats, _Floats]:
    """(N, 3) each, unit length: some matches of a pair as both cameras see them."""
    a, b = source.pairs[number].tolist()
    matches = matches_of(source.row(a, b, "data")[0])
    few = matches[:: max(1, len(matches) // _ENOUGH)]
    first, second = rays(a)[few[:, 0]], rays(b)[few[:, 1]]
    finite = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    first, second = (side[finite] / np.linalg.norm(side[finite], axis=1, keepdims=True) for side in (first, second))
    return first, second


def _fit(first: _Floats, second: _Floats, expected: _Floats, allowed: float) -> bool:
    """Whether most matches fit a rotation that is so near to the expected one, radians, and some translation.

    Gauss-Newton over both on the distances from the epipolar planes, weighted by Cauchy's loss of a falling scale.
    """
    rotation = expected
    normals = np.cross(second, first @ rotation.T)
    translation = np.linalg.eigh(normals.T @ normals)[1][:, 0]
    for scale in _SCALES:
        turned = first @ rotation.T
        normals = np.cross(second, turned)
        errors = normals @ translation
        # of r2 x (w x q) . t by w
        by_rotation = (second * turned).sum(axis=1)[:, None] * translation - (turned @ translation)[:, None] * second
        system = np.concatenate((by_rotation, normals), axis=1)
        weighted = system / (1 + (errors / scale) ** 2)[:, None]
        matrix = weighted.T @ system
        matrix[3:, 3:] += np.outer(translation, translation) * np.trace(matrix)  # its length does not change
        step = np.linalg.solve(matrix + 1e-6 * (np.trace(matrix) + 1e-12) * np.eye(6), -weighted.T @ errors)
        rotation = cv2.Rodrigues(step[:3])[0] @ rotation
        translation = translation + step[3:]
        translation /= np.linalg.norm(translation)
    errors = np.cross(second, first @ rotation.T) @ translation
    return _angle(rotation @ expected.T) <= allowed and bool((np.abs(errors) < _FITS).mean() >= _HALF)


def _vector(rotation: _Floats) -> _Floats:
    """(3,) axis times angle, radians."""
    return np.asarray(cv2.Rodrigues(rotation)[0], np.float64).ravel()


def _angle(rotation: _Floats) -> float:
    """Radians."""
    return float(np.arccos(np.clip((rotation.trace() - 1) / 2, -1, 1)))


class _Chains:
    """Images in trees: each knows its rotation from the one above it, and which way and how far it turned from there.

    A turn is the sum of the axis-angle vectors along a chain, in the first one's axes: what goes there and back
    cancels, a whole circle does not.
    """

    def __init__(self) -> None:
        self._above: dict[int, tuple[int, _Floats, _Floats]] = {}
        self._size: dict[int, int] = {}

    def _top(self, image: int) -> tuple[int, _Floats, _Floats]:
        """The uppermost image of a tree, the rotation from its axes to the image's, and the turn between them."""
        way = []
        while image in self._above:
            way.append(image)
            image = self._above[image][0]
        rotation, turn = np.eye(3), np.zeros(3)
        for one in reversed(way):
            _, further, turned = self._above[one]
            turn = turn + rotation.T @ turned
            rotation = further @ rotation
            self._above[one] = image, rotation, turn
        return image, rotation, turn

    def between(self, a: int, b: int) -> tuple[_Floats, _Floats] | None:
        """From a's axes to b's, and the turn; None where no chain connects them."""
        (top, of_a, turn_a), (other, of_b, turn_b) = self._top(a), self._top(b)
        return (of_b @ of_a.T, turn_b - turn_a) if top == other else None

    def join(self, a: int, b: int, rotation: _Floats) -> None:
        """By a pair with that rotation from a's axes to b's. Images that are in one tree are left as they are."""
        (top, of_a, turn_a), (other, of_b, turn_b) = self._top(a), self._top(b)
        if top == other:
            return
        if self._size.get(top, 1) < self._size.get(other, 1):
            self.join(b, a, rotation.T)
            return
        down = of_b.T @ rotation @ of_a
        turn = turn_a + of_a.T @ _vector(rotation) - down.T @ turn_b
        self._above[other] = top, down, turn
        self._size[top] = self._size.get(top, 1) + self._size.get(other, 1)
