"""A textured room with known cameras, rendered from nothing: what `demo` and the tests reconstruct.

World: metres, z up. Cameras as COLMAP's: x right, y down, z forward; `camera_from_world` maps world points to camera
points. Image pixels have the centre of the top-left one at (0.5, 0.5).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

WIDTH, HEIGHT, FOCAL = 960, 720, 800.0  # pixels
_TEXELS_PER_METRE = 400
_SUPERSAMPLING = 2
_COARSE = 4  # texels


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

    def plane(corner: tuple[float, ...], u: tuple[float, ...], v: tuple[float, ...]) -> Rectangle:
        size = np.linalg.norm(u), np.linalg.norm(v)
        return Rectangle(np.array(corner), np.array(u), np.array(v), _texture(float(size[0]), float(size[1]), rng))

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
    return planes


def _texture(width: float, height: float, rng: np.random.Generator) -> Image:
    """Noise at many scales under shapes and letters: corners at every size, repeated nowhere."""
    w, h = int(width * _TEXELS_PER_METRE), int(height * _TEXELS_PER_METRE)
    ground = np.zeros((h, w, 3), np.float32)
    small = np.zeros((-(-h // _COARSE), -(-w // _COARSE), 3), np.float32)  # what is smooth is drawn in small
    cell = max(w, h) // 2
    while cell >= 3:
        grid = rng.normal(0, 1, (h // cell + 2, w // cell + 2, 3)).astype(np.float32)
        grid += rng.normal(0, 1, grid.shape[:2])[..., None]
        grid *= cell**0.35
        onto, scale = (small, cell / _COARSE) if cell >= 8 * _COARSE else (ground, cell)
        onto += cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[: len(onto), : onto.shape[1]]
        cell //= 2
    ground += cv2.resize(small, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_CUBIC)[:h, :w]
    contrast = 38 / ground.std()
    ground *= contrast
    ground += (128 - ground.mean() + rng.uniform(-30, 30, 3)).astype(np.float32)
    texture: Image = np.clip(ground, 0, 255, out=ground).astype(np.uint8)
    for _ in range(int(18 * width * height) + 6):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y = int(rng.integers(w)), int(rng.integers(h))
        size = int(rng.integers(8, 60))
        kind = rng.integers(4)
        if kind == 0:
            points = (rng.normal(0, size, (int(rng.integers(3, 6)), 2)) + (x, y)).astype(np.int32)
            cv2.fillPoly(texture, [points], colour, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(texture, (x, y), size // 2, colour, int(rng.integers(-1, 5)) or 1, cv2.LINE_AA)
        elif kind == 2:
            end = (x + int(rng.normal(0, 2 * size)), y + int(rng.normal(0, 2 * size)))
            cv2.line(texture, (x, y), end, colour, int(rng.integers(1, 8)), cv2.LINE_AA)
        else:
            letters = "".join(chr(int(c)) for c in rng.integers(65, 91, 3))
            cv2.putText(texture, letters, (x, y), cv2.FONT_HERSHEY_DUPLEX, size / 25, colour, 3, cv2.LINE_AA)
    return texture


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
    nearest = np.zeros((height, width), np.float32)  # inverse depth
    for plane in planes:
        patch = _project(view, plane, k, width, height)
        if patch is None:
            continue
        covered = (patch.s >= 0) & (patch.s <= 1) & (patch.t >= 0) & (patch.t <= 1)
        front = covered & (patch.inverse_depth > nearest[patch.where])
        if not front.any():
            continue
        texture_height, texture_width = plane.texture.shape[:2]
        x, y = patch.s * texture_width - 0.5, patch.t * texture_height - 0.5
        seen = cv2.remap(plane.texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(image[patch.where], seen, where=front[..., None])
        np.copyto(nearest[patch.where], patch.inverse_depth, where=front)
    return np.asarray(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class _Patch:
    """The part of the image that a rectangle may cover, (h, w) values of its pixels."""

    where: tuple[slice, slice]  # rows, columns
    inverse_depth: NDArray[np.float32]
    s: NDArray[np.float32]  # texture coordinates; 0 to 1 on the rectangle
    t: NDArray[np.float32]


def _project(view: View, plane: Rectangle, k: Floats, width: int, height: int) -> _Patch | None:
    """Intersects the rays of the pixels with the rectangle's plane.

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
    x = np.arange(left, right)[None] + 0.5
    y = np.arange(top, bottom)[:, None] + 0.5
    # in float32, a texture coordinate is off by some thousandths of a texel
    s, t, w = ((row[0] * x).astype(np.float32) + (row[1] * y + row[2]).astype(np.float32) for row in np.linalg.inv(m))
    behind = w <= 1e-6
    if behind.any():
        w[behind] = 1e-6
    s /= w
    t /= w
    w[behind] = -1
    return _Patch((slice(top, bottom), slice(left, right)), w, s, t)
