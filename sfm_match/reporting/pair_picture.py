"""A picture of two images and their matches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap import queries
from sfm_match.errors import NothingDone
from sfm_match.images.coordinates import orient, plan_geometry
from sfm_match.images.files import Header, ImageError, decode, find_mask, read_mask
from sfm_match.matching.acceptance import Verdict
from sfm_match.reporting.packing import spread
from sfm_match.reporting.pictures import FAINT, PAPER, SKY_BLUE, VERMILLION, YELLOW, Colour, Pen, Pixels
from sfm_match.results import Results

Floats = NDArray[np.float64]

WIDTH = 1920  # pixels of the picture
_HEIGHT = 1080  # of the images, at most
_LEAST = 48  # pixels of an image's shorter side: thinner ones are stretched
_LETTERS, _ROW = 20, 34  # pixels of the text and of its lines
_LINES = 200  # of a kind, at most, evenly chosen: more would hide the photographs
_DASH, _GAP = 12.0, 8.0  # pixels
_BITS = 4  # of a pixel's fractions, for OpenCV
_MASKED = 0.3  # of its brightness, where a mask is black
_COLOUR = 0.35  # of the photographs', that the lines stand out


@dataclass(frozen=True)
class Style:
    """How a kind of match is drawn."""

    colour: Colour
    opacity: float
    width: int  # of a line, pixels
    dashed: bool
    cross: bool  # its ends are crosses, not discs


INLIER = Style(SKY_BLUE, 0.9, 1, dashed=False, cross=False)
OTHER = Style(VERMILLION, 0.9, 2, dashed=True, cross=True)
UNVERIFIED = Style(YELLOW, 0.9, 1, dashed=True, cross=False)


@dataclass(frozen=True)
class Kind:
    """Matches of one kind."""

    name: str  # in the legend, after their number
    style: Style
    rows: NDArray[np.int64]  # of the points


@dataclass(frozen=True)
class View:
    """An image, and where the matches are in it."""

    name: str
    header: Header
    pixels: Pixels  # (h, w, 3) RGB, as the sensor stored them, in any size
    points: NDArray[np.float32]  # (M, 2) raw pixels
    mask: Pixels | None = None  # (h, w), as `pixels`: 0 where nothing was looked for


def kinds_of(inliers: NDArray[np.bool_]) -> list[Kind]:
    """Of verified matches: (M,) whether they agree with the geometry."""
    return [
        Kind("other matches", OTHER, np.flatnonzero(~inliers)),
        Kind("inliers", INLIER, np.flatnonzero(inliers)),
    ]


def pair_of(results: Results, first: str, second: str) -> Pixels:
    """The picture of a pair of a workspace: `draw_pair` of what is known of it by now.

    Raises:
        UsageError: there is no such image.
        NothingDone: the pair is not matched yet, or a photograph cannot be read.
    """
    found = results.matches(first, second)
    rows = found.indices.astype(np.int64)
    database = results.workspace.database
    if queries.read_record(database, "inputs") is None:
        kinds, note = [Kind("matches, not verified yet", UNVERIFIED, np.arange(len(rows)))], ""
    else:
        verified = results.verified(first, second).astype(np.int64)
        agreeing = np.isin(rows @ (1 << 32, 1), verified @ (1 << 32, 1))
        kinds, verdict = kinds_of(agreeing), queries.verdict(database, first, second)
        note = f"rejected: {verdict}" if verdict not in (None, Verdict.ACCEPTED) else ""
    views = [_view(results, name, rows[:, side]) for side, name in enumerate((first, second))]
    return draw_pair(views[0], views[1], kinds, note)


def _view(results: Results, name: str, rows: NDArray[np.int64]) -> View:
    header, path = results.images[name], results.image_folder / name
    scale = min(1.0, WIDTH / max(header.width, header.height))
    size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
    try:
        pixels = decode(path, size)
        mask = find_mask(results.mask_folder, name)
        dark = read_mask(mask, (header.width, header.height)) if mask is not None else None
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error
    return View(name, header, pixels, results.features(name, descriptors=False).keypoints[rows], dark)


def draw_pair(a: View, b: View, kinds: Sequence[Kind], note: str = "") -> Pixels:
    """(H, 1920, 3) RGB: two images upright, side by side or, where that shows more of them, one above the other.

    Every match has its two ends drawn; of each kind, at most 200 have a line, evenly chosen by their place in A.

    Args:
        a, b: the images.
        kinds: of the matches; the last one is drawn on top.
        note: one more thing to say.
    """
    boxes, height = _layout(a.header.upright_size, b.header.upright_size)
    picture = np.full((height + 2 * _ROW, WIDTH, 3), PAPER, np.uint8)
    pen = Pen(_LETTERS)
    for view, box in zip((a, b), boxes, strict=True):
        _place(picture, view, box)
    ends = [_in_picture(view, box) for view, box in zip((a, b), boxes, strict=True)]
    for kind in kinds:
        _draw(picture, ends[0][kind.rows], ends[1][kind.rows], kind.style)
    names = picture[height : height + _ROW]
    for letter, view, left in (("A", a, 12), ("B", b, WIDTH // 2 + 12)):
        pen.write(names, (left, 6), f"{letter}: {pen.shortened(view.name, WIDTH // 2 - 70)}")
    _legend(picture[height + _ROW :], pen, kinds, note)
    return picture


@dataclass(frozen=True)
class _Box:
    left: int
    top: int
    width: int
    height: int


def _layout(a: tuple[int, int], b: tuple[int, int]) -> tuple[list[_Box], int]:
    """Where both images are, and the height of both: the layout in which the smaller one of them is larger."""
    beside = [_fit(size, (WIDTH // 2, _HEIGHT)) for size in (a, b)]
    above = [_fit(size, (WIDTH, _HEIGHT // 2)) for size in (a, b)]
    if min(width * height for width, height in beside) >= min(width * height for width, height in above):
        whole = max(height for _, height in beside)
        places = [
            (i * WIDTH // 2 + (WIDTH // 2 - size[0]) // 2, (whole - size[1]) // 2) for i, size in enumerate(beside)
        ]
        return [_Box(*place, *size) for place, size in zip(places, beside, strict=True)], whole
    places = [((WIDTH - size[0]) // 2, i * above[0][1]) for i, size in enumerate(above)]
    return [_Box(*place, *size) for place, size in zip(places, above, strict=True)], above[0][1] + above[1][1]


def _fit(size: tuple[int, int], most: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image in a box."""
    scale = min(most[0] / size[0], most[1] / size[1])
    return max(_LEAST, round(size[0] * scale)), max(_LEAST, round(size[1] * scale))


def _place(picture: Pixels, view: View, box: _Box) -> None:
    size = box.width, box.height
    upright = orient(view.pixels, view.header.orientation)
    shrinks = upright.shape[1] > box.width
    panel = cv2.resize(upright, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(panel, cv2.COLOR_RGB2GRAY)[..., None]
    panel = panel * _COLOUR + grey * (1 - _COLOUR)
    if view.mask is not None:
        mask = cv2.resize(orient(view.mask, view.header.orientation), size, interpolation=cv2.INTER_NEAREST_EXACT)
        panel = np.where((mask == 0)[..., None], panel * _MASKED, panel)
    picture[box.top : box.top + box.height, box.left : box.left + box.width] = panel


def _in_picture(view: View, box: _Box) -> Floats:
    """(M, 2) points of the picture, where (0, 0) is the centre of its first pixel."""
    header = view.header
    geometry = plan_geometry((header.width, header.height), header.orientation, max(header.width, header.height), 1)
    upright = geometry.upright_from_raw(np.asarray(view.points, np.float32).reshape(-1, 2)).astype(np.float64)
    scale = np.divide((box.width, box.height), geometry.oriented_size)
    placed = upright * scale + (box.left - 0.5, box.top - 0.5)
    return np.asarray(placed, np.float64)


def _draw(picture: Pixels, start: Floats, end: Floats, style: Style) -> None:
    """Lines of an even choice, and both ends of all."""
    order = np.argsort(start[:, 0] + start[:, 1] * 1e-6, kind="stable")
    chosen = order[spread(len(order), _LINES)]
    drawn = picture.copy()
    strokes = [stroke for row in chosen for stroke in _strokes(start[row], end[row], style.dashed)]
    fixed = [np.rint(stroke * (1 << _BITS)).astype(np.int32) for stroke in strokes]
    cv2.polylines(drawn, fixed, False, style.colour, style.width, cv2.LINE_AA, _BITS)
    cv2.addWeighted(drawn, style.opacity, picture, 1 - style.opacity, 0, picture)
    for points in (start, end):
        for point in np.rint(points).astype(int).tolist():
            _mark(picture, (point[0], point[1]), style)


def _strokes(start: Floats, end: Floats, dashed: bool) -> Iterator[Floats]:
    """(2, 2) each."""
    length = float(np.linalg.norm(end - start))
    if not dashed or length < _DASH:
        yield np.stack((start, end))
        return
    at = np.arange(0, length, _DASH + _GAP)
    for begin, stop in zip(at, np.minimum(at + _DASH, length), strict=True):
        yield start + (end - start) * (np.array((begin, stop)) / length)[:, None]


def _mark(picture: Pixels, point: tuple[int, int], style: Style) -> None:
    if style.cross:
        cv2.drawMarker(picture, point, style.colour, cv2.MARKER_TILTED_CROSS, 9, 2, cv2.LINE_AA)
    else:
        cv2.circle(picture, point, 2, style.colour, -1, cv2.LINE_AA)


def _legend(strip: Pixels, pen: Pen, kinds: Sequence[Kind], note: str) -> None:
    """The kinds with their numbers, those on top first."""
    left, middle = 12, _ROW // 2
    if not any(len(kind.rows) for kind in kinds):
        pen.write(strip, (left, 6), "; ".join(one for one in ("0 matches", note) if one))
        return
    for kind in reversed(kinds):
        start, end = (np.array([(left + x, middle)], np.float64) for x in (6, 54))
        _draw(strip, start, end, kind.style)
        count = len(kind.rows)
        lines = f" ({_LINES} lines drawn)" if count > _LINES else ""
        text = f"{count:,} {kind.name}{lines}"
        pen.write(strip, (left + 66, 6), text)
        left += 66 + pen.width(text) + 36
    if note:
        pen.write(strip, (left, 6), pen.shortened(note, WIDTH - left - 12), FAINT)
