"""`infer`: two images, their matches, and a picture of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.config import ExtractOptions, MatchOptions
from sfm_match.errors import NothingDone
from sfm_match.frames import Frame
from sfm_match.images import ImageError, decode, read_header
from sfm_match.loader import Item, Loaded, normalise, to_network
from sfm_match.matching import match_descriptors
from sfm_match.models import find_model
from sfm_match.progress import Clock
from sfm_match.stages.extract import Network
from sfm_match.store.features import Features

MIN_FOR_GEOMETRY = 8  # matches; fewer have no fundamental matrix
_RANSAC_PIXELS = 2.0
_RANSAC_SEED = 0
_PICTURE_HEIGHT = 720  # pixels
_LINES = 250  # at most about so many, evenly chosen: more would hide the photographs
_REJECTED = (120, 120, 120)  # grey


@dataclass(frozen=True)
class PairResult:
    """Matches of two images. Coordinates are raw pixels, the centre of the top-left one at (0.5, 0.5)."""

    keypoints: tuple[int, int]  # found in each image
    points_a: NDArray[np.float32]  # (M, 2)
    points_b: NDArray[np.float32]  # (M, 2)
    scores: NDArray[np.float32]  # (M,) dual-softmax probability
    inliers: NDArray[np.bool_]  # (M,) agree with one fundamental matrix

    def line(self) -> str:
        found, agreeing = len(self.scores), int(self.inliers.sum())
        return (
            f"infer {self.keypoints[0]:,} and {self.keypoints[1]:,} keypoints, {found:,} matches, "
            f"{agreeing:,} of them agree with one epipolar geometry"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "keypoints": list(self.keypoints),
            "points_a": self.points_a.round(2).tolist(),
            "points_b": self.points_b.round(2).tolist(),
            "scores": self.scores.round(4).tolist(),
            "inliers": self.inliers.tolist(),
        }


def infer(image_a: str | Path, image_b: str | Path, viz: str | Path | None = None, **options: Any) -> PairResult:
    """Matches two images, and draws them where `viz` names a picture.

    Args:
        image_a: a file.
        image_b: another.
        viz: PNG or JPEG to write: matches coloured by score, those off the epipolar geometry in grey.
        **options: of `ExtractOptions`, and `match_threshold`, `inverse_temperature`.

    Raises:
        UsageError: an option it does not take.
        NothingDone: an image cannot be read.
    """
    extracting, matching = ExtractOptions.from_mapping(options), MatchOptions.from_mapping(options)
    model = find_model(extracting.model)
    network = Network(model, extracting)
    loaded = [_load(Path(path), extracting.size, model.divisor) for path in (image_a, image_b)]
    features = [_features(network, pixels, item) for pixels, item in loaded]
    threshold = matching.threshold if matching.threshold is not None else model.match_threshold
    first, second = (f.descriptors.astype(np.float32) for f in features)
    matches = match_descriptors(first, second, threshold, matching.inverse_temperature)
    a = features[0].keypoints[matches.indices[:, 0]]
    b = features[1].keypoints[matches.indices[:, 1]]
    counts = len(features[0].keypoints), len(features[1].keypoints)
    result = PairResult(counts, a, b, matches.scores.astype(np.float32), _inliers(a, b))
    if viz is not None:
        picture = draw([(pixels, item.frame) for pixels, item in loaded], result)
        if not cv2.imwrite(str(viz), picture[..., ::-1]):
            raise NothingDone(f"--viz {viz}: cannot be written")
    return result


def _load(path: Path, size: int, divisor: int) -> tuple[NDArray[np.uint8], Item]:
    try:
        header = read_header(path)
        pixels = decode(path)
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error
    return pixels, Item(str(path), header.frame(size, divisor))


def _features(network: Network, pixels: NDArray[np.uint8], item: Item) -> Features:
    image = normalise(to_network(pixels, item.frame))[None]
    found = network.features(Loaded([item], image, [None], {}, set()), Clock())[item.name]
    if isinstance(found, str):
        raise NothingDone(f"{item.name}: {found}")
    return found


def _inliers(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    if len(a) < MIN_FOR_GEOMETRY:
        return np.zeros(len(a), bool)
    cv2.setRNGSeed(_RANSAC_SEED)
    _, mask = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, _RANSAC_PIXELS, 0.999, 10_000)
    return np.zeros(len(a), bool) if mask is None else mask.ravel() > 0


def draw(images: list[tuple[NDArray[np.uint8], Frame]], result: PairResult) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the two images upright, side by side; inliers from red (weak) to green (sure), the rest grey.

    Every match has its two dots, an even choice of them a line.
    """
    panels, placed, offset = [], [], 0.0
    for (pixels, frame), points in zip(images, (result.points_a, result.points_b), strict=True):
        upright = frame.orient(pixels)
        scale = _PICTURE_HEIGHT / upright.shape[0]
        width = max(1, round(upright.shape[1] * scale))
        panels.append(cv2.resize(upright, (width, _PICTURE_HEIGHT), interpolation=cv2.INTER_AREA))
        placed.append(frame.upright_from_raw(points) * np.float32(scale) - 0.5 + np.array((offset, 0), np.float32))
        offset += width
    picture = np.ascontiguousarray(np.hstack(panels))
    # inliers last, and the surest on top
    order = np.lexsort((result.scores, result.inliers))
    for place, row in enumerate(order):
        score = float(result.scores[row])
        colour = (int(255 * (1 - score)), int(255 * score), 40) if result.inliers[row] else _REJECTED
        start, end = (tuple(np.rint(points[row]).astype(int).tolist()) for points in placed)
        if place % max(1, len(order) // _LINES) == 0:
            cv2.line(picture, start, end, colour, 1, cv2.LINE_AA)
        cv2.circle(picture, start, 2, colour, -1, cv2.LINE_AA)
        cv2.circle(picture, end, 2, colour, -1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)
