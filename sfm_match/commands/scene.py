"""A textured room with known cameras, rendered from nothing: what `demo` and the tests reconstruct.

World: metres, z up. Cameras as COLMAP's: x right, y down, z forward; `camera_from_world` maps world points to camera
points. Image pixels have the centre of the top-left one at (0.5, 0.5).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.job.cores import cores

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

WIDTH, HEIGHT, FOCAL = 960, 720, 800.0  # pixels
_TEXELS_PER_METRE = 400
_SUPERSAMPLING = 2
_COARSE = 4  # texels
_FARTHEST = 1e-6  # inverse depth
_FEW = 24  # rows of a texture that are worked on at once
_BAND = 480  # rows that are worked on at once: with fewer, threads wait for one another between numpy calls


@dataclass(frozen=True)
class Rectangle:
    """A textured rectangle: corner, two edges, texture (rows along the second edge)."""

    corner: Floats  # (3,)
    u: Floats  # (3,)
    v: Floats  # (3,)
    texture: Image


@dataclass(frozen=True)
class View:
    """One camera of the scene."""

    name: str
    rotation: Floats  # (3, 3) camera_from_world
    centre: Floats  # (3,) world


def intrinsics() -> Floats:
    """K of every view."""
    return np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])


def room(seed: int = 0) -> list[Rectangle]:
    """A floor, two walls and four boxes."""
    rng = np.random.default_rng(seed)
    # each is drawn by a thread as soon as its random numbers are known
    with ThreadPoolExecutor(cores()) as pool:

        def plane(corner: tuple[float, ...], u: tuple[float, ...], v: tuple[float, ...]) -> "Future[Rectangle]":
            sides = np.array(corner), np.array(u), np.array(v)
            return pool.submit(_drawn, sides, _draft(sides, rng))

        planes = [
            plane((-3, -3, 0), (6, 0, 0), (0, 6, 0)),
            plane((-3, 3, 3), (6, 0, 0), (0, 0, -3)),
            plane((-3, -3, 3), (0, 6, 0), (0, 0, -3)),
        ]
        for x, y, width, depth, height, turn in (
            (-0.9, 0.6, 1.0, 0.8, 1.4, 0.3),
            (0.7, 0.9, 0.8, 0.9, 0.9, -0.5),
            (0.1, -0.6, 0.7, 0.7, 0.6, 0.8),
            (1.5, -0.2, 0.6, 0.5, 1.1, 0.2),
        ):
            a = np.array([np.cos(turn), np.sin(turn), 0.0])
            b = np.array([-np.sin(turn), np.cos(turn), 0.0])
            up = np.array([0, 0, 1.0])
            low = np.array([x, y, 0.0]) - a * width / 2 - b * depth / 2
            top = low + up * height
            planes += [
                plane(tuple(top), tuple(a * width), tuple(b * depth)),
                plane(tuple(top), tuple(a * width), tuple(-up * height)),
                plane(tuple(top + b * depth), tuple(a * width), tuple(-up * height)),
                plane(tuple(top), tuple(b * depth), tuple(-up * height)),
                plane(tuple(top + a * width), tuple(b * depth), tuple(-up * height)),
            ]
        return [one.result() for one in planes]


@dataclass(frozen=True)
class _Draft:
    """All that is random in a texture."""

    size: tuple[int, int]  # texels: height, width
    grids: list[tuple[int, NDArray[np.float32]]]  # texels of a cell, (rows, columns, 3) noise
    brightness: Floats  # (3,)
    shapes: list[Callable[[Image], object]]  # draw something on it


def _draft(sides: tuple[Floats, Floats, Floats], rng: np.random.Generator) -> _Draft:
    """Noise at many scales under shapes and letters: corners at every size, repeated nowhere."""
    width, height = (float(np.linalg.norm(edge)) for edge in sides[1:])
    w, h = int(width * _TEXELS_PER_METRE), int(height * _TEXELS_PER_METRE)
    grids = []
    cell = max(w, h) // 2
    while cell >= 3:
        grid = rng.normal(0, 1, (h // cell + 2, w // cell + 2, 3)).astype(np.float32)
        grid += rng.normal(0, 1, grid.shape[:2])[..., None]
        grid *= cell**0.35
        grids.append((cell, grid))
        cell //= 2
    brightness = rng.uniform(-30, 30, 3)
    shapes = [_shape(w, h, rng) for _ in range(int(18 * width * height) + 6)]
    return _Draft((h, w), grids, brightness, shapes)


def _shape(w: int, h: int, rng: np.random.Generator) -> Callable[[Image], object]:
    """Draws one on a texture of w x h."""
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    x, y = int(rng.integers(w)), int(rng.integers(h))
    size = int(rng.integers(8, 60))
    kind = rng.integers(4)
    if kind == 0:
        points = (rng.normal(0, size, (int(rng.integers(3, 6)), 2)) + (x, y)).astype(np.int32)
        return lambda texture: cv2.fillPoly(texture, [points], colour, cv2.LINE_AA)
    if kind == 1:
        thickness = int(rng.integers(-1, 5)) or 1
        return lambda texture: cv2.circle(texture, (x, y), size // 2, colour, thickness, cv2.LINE_AA)
    if kind == 2:
        end = (x + int(rng.normal(0, 2 * size)), y + int(rng.normal(0, 2 * size)))
        thickness = int(rng.integers(1, 8))
        return lambda texture: cv2.line(texture, (x, y), end, colour, thickness, cv2.LINE_AA)
    letters, font = "".join(chr(int(c)) for c in rng.integers(65, 91, 3)), cv2.FONT_HERSHEY_DUPLEX
    return lambda texture: cv2.putText(texture, letters, (x, y), font, size / 25, colour, 3, cv2.LINE_AA)


def _drawn(sides: tuple[Floats, Floats, Floats], draft: _Draft) -> Rectangle:
    h, w = draft.size
    ground = np.zeros((h, w, 3), np.float32)
    small = np.zeros((-(-h // _COARSE), -(-w // _COARSE), 3), np.float32)  # what is smooth is drawn in small
    for cell, grid in draft.grids:
        onto, scale = (small, cell / _COARSE) if cell >= 8 * _COARSE else (ground, cell)
        onto += cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[: len(onto), : onto.shape[1]]
    ground += cv2.resize(small, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_CUBIC)[:h, :w]
    mean, deviation = (float(value) for value in np.ravel(cv2.meanStdDev(ground.reshape(h, -1))))
    contrast = np.float32(38 / deviation)
    shift = (128 - contrast * mean + draft.brightness).astype(np.float32)
    texture = np.empty(ground.shape, np.uint8)
    for top in range(0, h, _FEW):  # in the cache
        rows = ground[top : top + _FEW]
        rows *= contrast
        rows += shift
        texture[top : top + _FEW] = np.clip(rows, 0, 255, out=rows)
    for draw in draft.shapes:
        draw(texture)
    return Rectangle(*sides, texture)


def cameras(count: int) -> list[View]:
    """Cameras along an arc in front of the boxes, at changing heights, looking at them."""
    views = []
    for number in range(count):
        along = number / max(1, count - 1)
        angle = np.radians(-115 + 100 * along)
        distance = 3.6 + 0.35 * np.sin(5 * along)
        centre = np.array([distance * np.cos(angle), distance * np.sin(angle), 1.5 + 0.5 * np.sin(9 * along)])
        centre += (0.2, 0.3, 0)
        forward = np.array([0.1, 0.4, 0.6]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0, 0, 1.0))
        right /= np.linalg.norm(right)
        views.append(View(f"view{number:02d}.jpg", np.stack((right, np.cross(forward, right), forward)), centre))
    return views


def render(view: View, planes: list[Rectangle]) -> Image:
    """(H, W, 3) uint8 RGB of what the camera sees."""
    k = intrinsics()
    k[:2] *= _SUPERSAMPLING
    width, height = WIDTH * _SUPERSAMPLING, HEIGHT * _SUPERSAMPLING
    image = np.full((height, width, 3), 90, np.uint8)
    nearest = np.full((height, width), _FARTHEST, np.float32)  # inverse depth
    # what is near mostly hides what comes then, and that needs no pixels
    near = sorted(planes, key=lambda plane: float(np.linalg.norm(plane.corner + (plane.u + plane.v) / 2 - view.centre)))
    seen = [one for plane in near if (one := _seen(view, plane, k, width, height)) is not None]
    for top in range(0, height, _BAND):  # in the cache
        for one in seen:
            one.draw(image, nearest, max(top, one.rows.start), min(top + _BAND, one.rows.stop))
    return np.asarray(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class _Seen:
    """A rectangle, and the part of the image that it may cover."""

    texture: Image
    inverse: Floats  # (3, 3) from (x, y, 1) of a pixel to (s, t, 1) / depth
    rows: slice
    columns: slice

    def draw(self, image: Image, nearest: NDArray[np.float32], top: int, bottom: int) -> None:
        """Between two rows, where it is nearest."""
        if top >= bottom:
            return
        where, left = (slice(top, bottom), self.columns), self.columns.start
        x = np.arange(left, self.columns.stop)[None] + 0.5
        y = np.arange(top, bottom)[:, None] + 0.5
        s, t, w = ((a * x).astype(np.float32) + (b * y + c).astype(np.float32) for a, b, c in self.inverse)
        front = (w > nearest[where]) & (s >= 0) & (s <= w) & (t >= 0) & (t <= w)
        rows, columns = (np.flatnonzero(front.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        mask = front[part].view(np.uint8)
        height, width = self.texture.shape[:2]
        texel = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1]])
        pixel = np.array([[1, 0, left + columns[0] + 0.5], [0, 1, top + rows[0] + 0.5], [0, 0, 1]])
        pixels = cv2.warpPerspective(
            self.texture,
            texel @ self.inverse @ pixel,
            mask.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        cv2.copyTo(pixels, mask, image[where][part])
        cv2.copyTo(w[part], mask, nearest[where][part])


def _seen(view: View, plane: Rectangle, k: Floats, width: int, height: int) -> _Seen | None:
    """Intersects the rays of the pixels with the rectangle's plane; None where there is nothing to see.

    A point corner + s u + t v has the pixel M (s, t, 1) / depth, with M = K R [u, v, corner - centre]; so
    M^-1 (x, y, 1) = (s, t, 1) / depth, and all three are affine in the pixel.
    """
    m = k @ view.rotation @ np.stack((plane.u, plane.v, plane.corner - view.centre), axis=1)
    if abs(np.linalg.det(m)) < 1e-9:  # seen from its edge
        return None
    corners = m @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    left, top, right, bottom = 0, 0, width, height
    if (corners[2] > 0.05).all():  # wholly in front: its corners bound it
        xs, ys = corners[0] / corners[2], corners[1] / corners[2]
        left, right = max(0, int(xs.min())), min(width, int(xs.max()) + 2)
        top, bottom = max(0, int(ys.min())), min(height, int(ys.max()) + 2)
    if left >= right or top >= bottom:
        return None
    return _Seen(plane.texture, np.asarray(np.linalg.inv(m), np.float64), slice(top, bottom), slice(left, right))
