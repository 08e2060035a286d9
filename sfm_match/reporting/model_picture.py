"""A picture of a model: from above and from the side, at one scale."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import NothingDone
from sfm_match.reporting.facts import read_models, read_summary
from sfm_match.reporting.models import Scene, scene_of
from sfm_match.reporting.packing import FULL
from sfm_match.reporting.pictures import FAINT, INK, PAPER, VERMILLION, Colour, Pen, Pixels
from sfm_match.results import Results

Floats = NDArray[np.float64]

WIDTH = 1600  # pixels of the picture
_HEIGHT = 1100  # of both views, at most
_LEAST = 60  # of a view
_MARGIN, _GAP = 40, 30  # pixels
_LETTERS, _ROW = 20, 34  # pixels of the text and of its lines
_FINER = 2  # drawn so much larger, then shrunk
_TAIL = 2.0  # per cent of points, and of cameras where they are many, that the picture need not show, at each end
_BEYOND = 0.05  # of the shown range, around it
_CAMERA = 0.06  # depth of a frustum, of the diagonal of what is shown
_APART = 1.5  # the same at most, of the median distance between neighbours
_SMALLEST = 8.0  # pixels of it
_ONE_WAY = 0.3  # length of the mean direction in which the cameras look, above which they look one way
_COVERED = 0.3  # share of a view that its points should cover
_LARGEST = 7  # side of a point, fine pixels
_FRAME = (225, 225, 225)  # around a view
_BAR = 0.2  # of the width of a view, at most


@dataclass(frozen=True)
class _World:
    """A scene turned to the right, away and up; what lies far out is left out."""

    points: Floats  # (P, 3)
    colours: NDArray[np.uint8]  # (P, 3)
    edges: Floats  # (E, 2, 3) of the frusta
    low: Floats  # (3,) of what is shown
    high: Floats
    outside: int  # cameras


def model_of(results: Results) -> Pixels:
    """The picture of the largest model of a workspace.

    Raises:
        NothingDone: there is no model.
        SfmMatchError: it is damaged.
    """
    place = results.workspace
    if not place.sparse.exists():
        raise NothingDone(f"{place.folder}: no model yet; run `sfm-match reconstruct` first")
    summary = read_summary(place)
    models = read_models(results, summary)
    metric = any(one.get("georeference") for one in summary.get("models", []))
    largest = models[0]
    posed = sum(image.has_pose for image in largest.images.values())
    images = len(results.images.keys() | results.failed.keys())
    title = (
        f"{place.folder.resolve().name}: {posed:,} of {images:,} images, "
        f"{largest.num_points3D():,} points, track length {largest.compute_mean_track_length():.2f}, "
        f"reprojection error {largest.compute_mean_reprojection_error():.2f} px"
    )
    others = [sum(image.has_pose for image in one.images.values()) for one in models[1:]]
    note = f"the largest of {len(models)} models; the others have {', '.join(map(str, others[:8]))} images"
    return draw_model(scene_of(largest, results.images, metric=metric), title, metric, note if others else "")


def draw_model(scene: Scene, title: str, metric: bool, note: str = "") -> Pixels:
    """(H, 1600, 3) RGB: points in their colours and cameras as frusta, from above and from the side.

    Args:
        scene: of a model.
        title: the line above.
        metric: a unit is a metre, z is up, y is north. If not, there is no scale bar.
        note: one more thing to say.
    """
    world = _world(scene, metric)
    size = world.high - world.low
    stacked = min((WIDTH - 2 * _MARGIN) / size[0], (_HEIGHT - _GAP) / (size[1] + size[2]))
    beside = min((WIDTH - 2 * _MARGIN - _GAP) / (2 * size[0]), _HEIGHT / max(size[1], size[2]))
    scale = max(stacked, beside)  # pixels of a unit
    views = [_view(world, vertical, scale) for vertical in (1, 2)]
    names = ("From above, north up", "From the south") if metric else ("From above", "From the side")
    rows = [views] if beside > stacked else [views[:1], views[1:]]
    pen = Pen(_LETTERS)
    strips = [_strip(pen, title), *([_strip(pen, note, FAINT)] if note else [])]
    labels = iter(names)
    for row in rows:
        strips += _row(pen, row, [next(labels) for _ in row])
    strips.append(_footer(pen, scale, metric, world.outside))
    return np.concatenate(strips)


def _world(scene: Scene, metric: bool) -> _World:
    turn = _upright(scene, metric)
    low, high = np.array(scene.low), np.array(scene.high)
    points = (low + scene.points / FULL * (high - low)) @ turn.T
    centres = scene.centres.astype(np.float64) @ turn.T
    ranges = [_range(points, _TAIL), _range(centres, _TAIL if len(centres) > 50 else 0.0)]
    known = [one for one in ranges if one is not None] or [(np.zeros(3), np.ones(3))]
    low, high = np.min([one[0] for one in known], axis=0), np.max([one[1] for one in known], axis=0)
    depth = _depth(centres, float(np.linalg.norm(high - low)) or 1.0)
    margin = np.maximum((high - low) * _BEYOND, depth)
    low, high = low - margin, high + margin
    flat = np.maximum(high - low, (high - low).max() * 1e-3)
    low, high = (low + high - flat) / 2, (low + high + flat) / 2
    inside = ((points >= low) & (points <= high)).all(axis=1)
    shown = ((centres >= low) & (centres <= high)).all(axis=1)
    edges = _frusta(scene, depth)[shown] @ turn.T
    return _World(points[inside], scene.colours[inside], edges.reshape(-1, 2, 3), low, high, int((~shown).sum()))


def _range(points: Floats, tail: float) -> tuple[Floats, Floats] | None:
    if not len(points):
        return None
    low, high = np.percentile(points, (tail, 100 - tail), axis=0)
    return low, high


def _upright(scene: Scene, metric: bool) -> Floats:
    """(3, 3) rows: to the right, away from the viewer of the side, up."""
    if metric:
        return np.eye(3)
    up = np.array(scene.up) / max(float(np.linalg.norm(scene.up)), 1e-12)
    up = up if up.any() else np.array([0.0, 0.0, 1.0])
    level = np.eye(3) - np.outer(up, up)
    looks: Floats = scene.axes[:, 2].astype(np.float64) @ level
    away = looks.mean(axis=0) if len(looks) else np.zeros(3)
    if np.linalg.norm(away) < _ONE_WAY:  # they look all around: along the shorter side
        points = scene.points / FULL * np.subtract(scene.high, scene.low)
        places: Floats = np.concatenate((points, scene.centres - np.asarray(scene.low))) @ level
        apart = places - places.sum(axis=0) / max(len(places), 1)
        away = np.linalg.eigh(apart.T @ apart)[1][:, 1] @ level  # of nothing, the shorter and the longer side
    if np.linalg.norm(away) < 1e-6:  # one camera that looks down, or all in one place
        away = np.linalg.svd(up[None])[2][1]
    away = away / np.linalg.norm(away)
    return np.stack((np.cross(away, up), away, up))


def _depth(centres: Floats, diagonal: float) -> float:
    """Of a frustum."""
    if len(centres) < 2:
        return _CAMERA * diagonal
    some = centres[np.linspace(0, len(centres) - 1, min(len(centres), 500)).astype(int)]
    apart = np.linalg.norm(some[:, None] - centres, axis=2)
    apart[apart == 0] = np.inf  # itself
    nearest = apart.min(axis=1)
    near = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else diagonal
    return float(np.clip(_APART * near, _SMALLEST / WIDTH * diagonal, _CAMERA * diagonal))


def _frusta(scene: Scene, depth: float) -> Floats:
    """(C, 8, 2, 3) edges: four from the centre, four of the image plane."""
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    flat = scene.halves[:, None] * signs  # (C, 4, 2)
    rays = np.concatenate((flat, np.ones((*flat.shape[:2], 1))), axis=2) * depth
    centres = scene.centres.astype(np.float64)[:, None]
    corners = centres + rays @ scene.axes.astype(np.float64)
    sides = np.stack((np.broadcast_to(centres, corners.shape), corners), axis=2)
    return np.concatenate((sides, np.stack((corners, np.roll(corners, -1, axis=1)), axis=2)), axis=1)


def _view(world: _World, vertical: int, scale: float) -> Pixels:
    """(h, w, 3): the first axis goes to the right, another one up the page; what is nearer covers what is behind."""
    fine = scale * _FINER
    width, height = (
        max(_LEAST * _FINER, round(float(side) * fine)) for side in (world.high - world.low)[[0, vertical]]
    )
    middle = (world.low + world.high) / 2

    def placed(points: Floats) -> Floats:
        """(..., 2) fine pixels."""
        at = (points - middle)[..., [0, vertical]] * (fine, -fine)
        return np.asarray(at + (width / 2, height / 2), np.float64)

    nearness = world.points[:, 2] if vertical == 1 else -world.points[:, 1]
    order = np.argsort(nearness, kind="stable")
    side = int(np.clip((_COVERED * width * height / max(len(order), 1)) ** 0.5, _FINER, _LARGEST))
    canvas = np.full((height + side, width + side, 3), PAPER, np.uint8)
    columns, rows = np.clip(placed(world.points[order]), 0, (width - 1, height - 1)).astype(np.int64).T
    down, across = np.divmod(np.arange(side * side), side)
    # in one assignment, of which the last of equal places stays
    canvas[(rows[:, None] + down).ravel(), (columns[:, None] + across).ravel()] = np.repeat(
        world.colours[order], side * side, axis=0
    )
    canvas = np.ascontiguousarray(canvas[:height, :width])
    lines = [np.rint(edge * 16).astype(np.int32) for edge in placed(world.edges)]
    cv2.polylines(canvas, lines, False, VERMILLION, _FINER, cv2.LINE_AA, 4)
    size = max(width // _FINER, 1), max(height // _FINER, 1)
    view = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.rectangle(view, (0, 0), (size[0] - 1, size[1] - 1), _FRAME, 1)
    return view


def _strip(pen: Pen, text: str, colour: Colour = INK) -> Pixels:
    strip = np.full((_ROW, WIDTH, 3), PAPER, np.uint8)
    pen.write(strip, (_MARGIN, 8), pen.shortened(text, WIDTH - 2 * _MARGIN), colour)
    return strip


def _row(pen: Pen, views: list[Pixels], labels: list[str]) -> list[Pixels]:
    """Labels, then the views below them."""
    each = (WIDTH - 2 * _MARGIN - _GAP * (len(views) - 1)) // len(views)
    head = np.full((_ROW, WIDTH, 3), PAPER, np.uint8)
    body = np.full((max(len(view) for view in views) + _GAP // 2, WIDTH, 3), PAPER, np.uint8)
    for i, (view, label) in enumerate(zip(views, labels, strict=True)):
        left = _MARGIN + i * (each + _GAP)
        pen.write(head, (left, 8), label, FAINT)
        left += max(0, each - view.shape[1]) // 2
        body[: len(view), left : left + view.shape[1]] = view[:, : WIDTH - left]
    return [head, body]


def _footer(pen: Pen, scale: float, metric: bool, outside: int) -> Pixels:
    strip = np.full((_ROW + 10, WIDTH, 3), PAPER, np.uint8)
    words = [] if metric else ["not georeferenced: no scale"]
    if outside:
        words.append(f"{outside:,} cameras lie outside the picture")
    left = _MARGIN
    if metric:
        metres = _round(_BAR * WIDTH / scale)
        right, middle = left + round(metres * scale), _ROW // 2
        cv2.line(strip, (left, middle), (right, middle), INK, 3)
        for end in (left, right):
            cv2.line(strip, (end, middle - 6), (end, middle + 6), INK, 3)
        pen.write(strip, (right + 12, 8), f"{metres:g} m")
        left = right + 12 + pen.width(f"{metres:g} m") + 36
    pen.write(strip, (left, 8), "; ".join(words), FAINT)
    return strip


def _round(most: float) -> float:
    """The largest of 1, 2, 5, 10, ... that is not more."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(one for one in (1, 2, 5) if one * power <= most * (1 + 1e-9)) * power)
