"""A city block with known cameras, rendered from nothing: houses round it and across the street, a walk between them.

The ground plan is a grid of cells of 12 m: a block of houses, a street of one cell all round it, houses beyond. Of five
kinds of houses, all of a kind have the very same windows; walls, shop fronts and posters are each house's own. A camera
walks along the block, looking half across the street, then along its other side, looking half at the block: views of
different places look alike, and nothing but the walk's own pictures closes its two circles.

World and cameras as in `sfm_match.commands.scene`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.commands.scene import View

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

WIDTH, HEIGHT, FOCAL = 768, 512, 600.0  # pixels
CELL = 12.0  # metres
STEP = 0.6  # metres between views, or so
_TEXELS, _GROUND_TEXELS = 96, 64  # per metre
_SUPERSAMPLING = 2
_STRIP = 6.0  # metres of a plane's longest side: each has one scale of texture
_NEAR = 0.2  # metres
_KINDS = 5
_FLOOR, _SHOP = 3.0, 3.4  # metres: heights of a floor, and of the lowest one
_ASIDE = 1.8  # metres from the houses to who walks along them
_TURNS = 4.0, 8.0  # metres, radius of the corners of both circles
_EYES = 1.65  # metres
_LOOK = 30.0  # degrees across the street
_NOISE = 1.5  # grey levels of a view
_Cell = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """Which cells have houses."""

    size: _Cell  # cells of the block along x and y
    heights: dict[_Cell, float]  # metres; of the street 0; the block begins at (0, 0)


@dataclass(frozen=True)
class Plane:
    """A textured rectangle: corner, two edges, its texture (rows along the second edge) at halving scales."""

    corner: Floats  # (3,)
    u: Floats  # (3,)
    v: Floats  # (3,)
    scales: list[Image]
    texels: float  # per metre, of the first scale


@dataclass(frozen=True)
class City:
    """Planes, and what tells which a camera sees."""

    planes: list[Plane]
    corners: Floats  # (P, 4, 3), in order round each
    normals: Floats  # (P, 3), towards where they are seen from

    @classmethod
    def of(cls, planes: list[Plane]) -> "City":
        corners = np.array([[p.corner, p.corner + p.u, p.corner + p.u + p.v, p.corner + p.v] for p in planes])
        return cls(planes, corners, np.array([np.cross(p.v, p.u) for p in planes]))


def intrinsics() -> Floats:
    """K of every view."""
    return np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])


def plan(views: int, seed: int = 0) -> Plan:
    """The block round which a walk of so many views has steps of `STEP`, or so, and the heights of its houses."""
    rng = np.random.default_rng(seed)
    bends = sum(8 * (CELL * far + _ASIDE * near) - 8 * r + 2 * np.pi * r for r, far, near in _circles())
    both = max(2, round((views * STEP - bends) / 4 / CELL))
    a, b = both - both // 2, both // 2
    heights = {}
    for x in range(-2, a + 2):
        for y in range(-2, b + 2):
            street = (x in (-1, a) and -1 <= y <= b) or (y in (-1, b) and -1 <= x <= a)
            heights[x, y] = 0.0 if street else _SHOP + _FLOOR * int(rng.integers(2, 5)) + float(rng.uniform(0.3, 1.2))
    return Plan((a, b), heights)


def _circles() -> tuple[tuple[float, int, int], tuple[float, int, int]]:
    """Radius of the corners, and the path's distance from the block in cells and `_ASIDE`, of both circles."""
    return (_TURNS[0], 0, 1), (_TURNS[1], 1, -1)


def walk(plan: Plan, views: int, seed: int = 0) -> list[View]:
    """Cameras at equal steps along both circles, as a hand holds them."""
    rng = np.random.default_rng(seed)
    paths = [_circle(plan, r, CELL * far + _ASIDE * near) for r, far, near in _circles()]
    lengths = [np.concatenate(([0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1)))) for p in paths]
    found = []
    shake = np.cumsum(rng.normal(0, 0.3, (views, 4)), axis=0)  # degrees, and centimetres: slow
    shake -= np.array([np.convolve(column, np.ones(31) / 31, "same") for column in shake.T]).T
    for number in range(views):
        along = (number + 0.5) / views * sum(one[-1] for one in lengths)
        which = int(along > lengths[0][-1])
        along -= which * lengths[0][-1]
        path, length = paths[which], lengths[which]
        place = np.array([np.interp(along, length, path[:, axis]) for axis in (0, 1)])
        before, after = (
            np.array([np.interp((along + by) % length[-1], length, path[:, axis]) for axis in (0, 1)])
            for by in (-0.5, 0.5)
        )
        ahead = np.arctan2(*(after - before)[::-1])
        yaw, pitch, roll = np.radians(shake[number, :3])
        yaw += ahead + np.radians(_LOOK if which else -_LOOK)  # the block is at the left
        pitch += np.radians(5)
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0])
        down = np.cross(forward, right)
        right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
        centre = np.array([*place, _EYES + 0.03 * np.sin(along * 9) + shake[number, 3] / 100])
        found.append(View(f"view{number:05d}.jpg", np.stack((right, down, forward)), centre))
    return found


def _circle(plan: Plan, radius: float, distance: float) -> Floats:
    """(N, 2) points of a rounded rectangle round the block, counter-clockwise, closed."""
    a, b = (CELL * cells for cells in plan.size)
    low, high = -distance + radius, distance - radius
    angles = np.radians(np.arange(0, 91, 3))
    points = [
        middle + radius * np.array([np.sin(angle + turn), -np.cos(angle + turn)])
        for middle, turn in (
            (np.array([a + high, low]), 0.0),
            (np.array([a + high, b + high]), np.pi / 2),
            (np.array([low, b + high]), np.pi),
            (np.array([low, low]), 3 * np.pi / 2),
        )
        for angle in angles
    ]
    return np.array([*points, points[0]])


def city(plan: Plan, seed: int = 0) -> City:
    """Façades, streets and what is parked there."""
    rng = np.random.default_rng(seed + 1)
    kinds = [_Kind.drawn(np.random.default_rng(seed + 100 + number)) for number in range(_KINDS)]
    planes: list[Plane] = []
    for (x, y), height in plan.heights.items():
        corner = CELL * np.array([x, y, 0.0])
        if not height:
            ground = _noise(int(CELL * _GROUND_TEXELS), int(CELL * _GROUND_TEXELS), rng, 12, 105)
            _things(ground, rng, 130, 0.4)
            planes += _strips(corner + (0, CELL, 0), (CELL, 0, 0), (0, -CELL, 0), ground, _GROUND_TEXELS)
            planes += _parked(corner, (x, y), plan, rng)
            continue
        kind = kinds[int(rng.integers(_KINDS))]
        for (dx, dy), start, u in (
            ((0, -1), (0, 0, 0), (1, 0, 0)),
            ((1, 0), (1, 0, 0), (0, 1, 0)),
            ((0, 1), (1, 1, 0), (-1, 0, 0)),
            ((-1, 0), (0, 1, 0), (0, -1, 0)),
        ):
            low = plan.heights.get((x + dx, y + dy), height)
            if low < height:
                texture = kind.front(height, rng) if low == 0 else kind.wall(height - low, rng)
                top = corner + CELL * np.array(start) + (0, 0, height)
                planes += _strips(top, CELL * np.array(u), (0, 0, low - height), texture, _TEXELS)
    return City.of(planes)


def _parked(corner: Floats, cell: _Cell, plan: Plan, rng: np.random.Generator) -> Iterator[Plane]:
    """A van along the pavement in some cells, not where the walk turns."""
    x, y = cell
    a, b = plan.size
    along_x = 1 <= x < a - 1 or (0 <= x < a and a < 3)
    along_y = 1 <= y < b - 1 or (0 <= y < b and b < 3)
    if not (along_x or along_y) or rng.random() > 0.5:
        return
    length, width, height = 4.6, 1.9, float(rng.uniform(1.6, 2.4))
    place = (CELL - length) * rng.random(), float(rng.choice([2.8, CELL - 2.8 - width]))
    size = (length, width) if along_x else (width, length)
    low = corner + np.array([*(place if along_x else place[::-1]), height])
    sides = (
        (low, (size[0], 0, 0)),
        (low + (size[0], 0, 0), (0, size[1], 0)),
        (low + (size[0], size[1], 0), (-size[0], 0, 0)),
        (low + (0, size[1], 0), (0, -size[1], 0)),
    )
    for start, u in sides:
        texture = _noise(int(np.linalg.norm(u) * _TEXELS), int(height * _TEXELS), rng, 14, rng.uniform(60, 190))
        _things(texture, rng, int(9 * np.linalg.norm(u)), 0.6)
        yield from _strips(start, u, (0, 0, -height), texture, _TEXELS)


@dataclass(frozen=True)
class _Kind:
    """What all houses of a kind share."""

    colour: float
    window: Image
    columns: int
    courses: int  # texels from one course of bricks to the next; 0: plaster

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Kind":
        width, height = int(rng.uniform(0.9, 1.4) * _TEXELS), int(rng.uniform(1.4, 1.9) * _TEXELS)
        window = _noise(width, height, rng, 10, 60)
        _things(window, rng, 14, 0.5)
        light = int(rng.integers(150, 250))
        cv2.rectangle(window, (0, 0), (width - 1, height - 1), (light,) * 3, 12)
        for share in (1 / 2, 1 / 3)[: int(rng.integers(1, 3))]:
            across = int(share * (width if share == 1 / 2 else height))
            ends = ((across, 0), (across, height)) if share == 1 / 2 else ((0, across), (width, across))
            cv2.line(window, *ends, (light,) * 3, 7)
        return cls(float(rng.uniform(90, 190)), window, int(rng.integers(4, 6)), int(rng.choice([0, 8, 11])))

    def wall(self, height: float, rng: np.random.Generator) -> Image:
        """(H, W, 3) of a cell's width."""
        texture = _noise(int(CELL * _TEXELS), int(height * _TEXELS), rng, 14, self.colour)
        if self.courses:
            texture[:: self.courses] = (texture[:: self.courses] * 0.8).astype(np.uint8)
        _things(texture, rng, int(1.2 * height), 0.5)
        return texture

    def front(self, height: float, rng: np.random.Generator) -> Image:
        """As `wall`, with windows from the first floor on, and a shop below."""
        texture = self.wall(height, rng)
        rows, columns = texture.shape[:2]
        high, wide = self.window.shape[:2]
        street = rows - int(_SHOP * _TEXELS)
        for bottom in range(street - int(0.6 * _TEXELS), high + 20, -int(_FLOOR * _TEXELS)):
            for number in range(self.columns):
                left = int((number + 0.5) / self.columns * columns) - wide // 2
                texture[bottom - high : bottom, left : left + wide] = self.window
        texture[street - 24 : street] = (texture[street - 24 : street] * 0.6).astype(np.uint8)
        shop = texture[street:]
        _things(shop, rng, 70, 1.0)
        return texture


def _noise(width: int, height: int, rng: np.random.Generator, contrast: float, grey: float) -> Image:
    """(height, width, 3): at many scales, repeated nowhere."""
    ground = np.zeros((height, width), np.float32)
    cell = 256
    while cell >= 2:
        grid = rng.standard_normal((height // cell + 2, width // cell + 2), np.float32)
        ground += cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)[:height, :width] * cell**0.3
        cell //= 2
    ground *= contrast / ground.std()
    tint = rng.uniform(-20, 20, 3).astype(np.float32)
    return np.asarray((ground[..., None] + np.float32(grey) + tint).clip(0, 255), np.uint8)


def _things(texture: Image, rng: np.random.Generator, count: int, size: float) -> None:
    """Draws posters, signs and stains."""
    height, width = texture.shape[:2]
    for _ in range(count):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        extent = size * float(rng.uniform(8, 70))
        kind = int(rng.integers(4))
        if kind == 0:
            corners = (rng.normal(0, extent, (int(rng.integers(3, 6)), 2)) + (x, y)).astype(np.int32)
            cv2.fillPoly(texture, [corners], colour, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(texture, (x, y), int(extent / 2) + 1, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        elif kind == 2:
            cv2.rectangle(texture, (x, y), (x + int(extent * rng.uniform(1, 3)), y + int(extent)), colour, -1)
        letters = "".join(chr(int(c)) for c in rng.integers(65, 91, 4))
        inverse = tuple(255 - c for c in colour)
        cv2.putText(texture, letters, (x, y), cv2.FONT_HERSHEY_DUPLEX, extent / 45, inverse, 2, cv2.LINE_AA)


def _strips(corner: Floats, u: object, v: object, texture: Image, texels: float) -> Iterator[Plane]:
    """A rectangle, cut along its first edge."""
    along, down = np.asarray(u, np.float64), np.asarray(v, np.float64)
    count = max(1, int(np.ceil(np.linalg.norm(along) / _STRIP - 1e-9)))
    edges = np.linspace(0, texture.shape[1], count + 1).astype(int)
    for left, right in pairwise(edges.tolist()):
        scales = [np.ascontiguousarray(texture[:, left:right])]
        while min(scales[-1].shape[:2]) >= 16:
            height, width = scales[-1].shape[:2]
            scales.append(np.asarray(cv2.resize(scales[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)))
        start = corner + along * (left / texture.shape[1])
        yield Plane(start, along * ((right - left) / texture.shape[1]), down, scales, texels)


def render(view: View, city: City, seed: int = 0) -> Image:
    """(H, W, 3) uint8 RGB of what the camera sees, with a little noise."""
    width, height = WIDTH * _SUPERSAMPLING, HEIGHT * _SUPERSAMPLING
    k = intrinsics()
    k[:2] *= _SUPERSAMPLING
    projection = k @ view.rotation
    sky = np.linspace((120, 160, 215), (205, 215, 225), height)
    image = np.ascontiguousarray(np.broadcast_to(sky[:, None], (height, width, 3)).astype(np.uint8))
    nearest = np.zeros((height, width), np.float32)  # inverse depth
    for number, corners in _visible(city, view.centre, projection, width, height):
        _draw(city.planes[number], corners, view.centre, projection, image, nearest)
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    rng = np.random.default_rng((seed, int(view.name.removeprefix("view").removesuffix(".jpg"))))
    small += rng.standard_normal(small.shape, np.float32) * _NOISE
    return np.asarray(small.round().clip(0, 255), np.uint8)


def _visible(city: City, centre: Floats, projection: Floats, width: int, height: int) -> Iterator[tuple[int, Floats]]:
    """Planes that face the camera and reach into its view, the nearest first, with (N, 3) corners, depth last."""
    towards = centre - city.corners[:, 0]
    facing = (towards * city.normals).sum(axis=1) > 0
    seen = (city.corners - centre) @ projection.T  # (P, 4, 3): x and y times depth, depth
    x, y, depth = np.moveaxis(seen, 2, 0)
    outside = ((x < 0), (x > width * depth), (y < 0), (y > height * depth), (depth < _NEAR))
    inside = facing & ~np.any([one.all(axis=1) for one in outside], axis=0)
    chosen = np.flatnonzero(inside)
    for number in chosen[np.argsort(depth[chosen].min(axis=1), kind="stable")].tolist():
        corners = _in_front(seen[number])
        if len(corners) >= 3:
            yield number, corners


def _in_front(corners: Floats) -> Floats:
    """A polygon's part beyond `_NEAR` (Sutherland & Hodgman, 1974)."""
    kept = []
    for here, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if here[2] >= _NEAR:
            kept.append(here)
        if (here[2] >= _NEAR) != (following[2] >= _NEAR):
            kept.append(here + (following - here) * (_NEAR - here[2]) / (following[2] - here[2]))
    return np.array(kept)


def _draw(
    plane: Plane, corners: Floats, centre: Floats, projection: Floats, image: Image, nearest: NDArray[np.float32]
) -> None:
    """As in `sfm_match.commands.scene`: texture coordinates over depth, and inverse depth, are affine in the pixel."""
    matrix = projection @ np.stack((plane.u, plane.v, plane.corner - centre), axis=1)
    if abs(np.linalg.det(matrix)) < 1e-9:  # seen from its edge
        return
    places = corners[:, :2] / corners[:, 2:]
    left, top = np.maximum(places.min(axis=0).astype(int), 0)
    right, bottom = np.minimum(places.max(axis=0).astype(int) + 2, (image.shape[1], image.shape[0]))
    if left >= right or top >= bottom:
        return
    inverse = np.linalg.inv(matrix)
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    row = inverse[2]
    closeness = (row[0] * x).astype(np.float32)[None] + (row[1] * y + row[2]).astype(np.float32)[:, None]
    covered = np.zeros(closeness.shape, np.uint8)
    corners_there = (places - (left, top) - 0.5) * 16
    cv2.fillConvexPoly(covered, corners_there.round().astype(np.int32), 1, cv2.LINE_8, 4)
    where = (slice(top, bottom), slice(left, right))
    front = (covered > 0) & (closeness > nearest[where])
    if not front.any():
        return
    shown = closeness[front]
    typical = float(np.sqrt(shown.min() * shown.max()))  # one over metres
    scale = plane.texels / (FOCAL * _SUPERSAMPLING * typical)
    level = int(np.clip(np.floor(np.log2(max(scale, 1e-9)) + 0.3), 0, len(plane.scales) - 1))
    texture = plane.scales[level]
    texture_height, texture_width = texture.shape[:2]
    to_texels = np.array([[texture_width, 0, -0.5], [0, texture_height, -0.5], [0, 0, 1.0]])
    from_pixel = np.array([[1, 0, left + 0.5], [0, 1, top + 0.5], [0, 0, 1.0]])
    seen = cv2.warpPerspective(
        texture,
        to_texels @ inverse @ from_pixel,
        (int(right - left), int(bottom - top)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    np.copyto(image[where], seen, where=front[..., None])
    np.copyto(nearest[where], closeness, where=front)
