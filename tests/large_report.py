"""Facts of jobs of any size, made up, so that no job has to run."""

from pathlib import Path

import cv2
import numpy as np

from sfm_match.images.files import Header
from sfm_match.reporting.facts import Facts
from sfm_match.reporting.matching import Drawn, Matching
from sfm_match.reporting.models import Measured, PerImage, Scene
from sfm_match.reporting.packing import KEYPOINTS, MATCHES, POINTS, THUMBNAIL_BYTES
from sfm_match.reporting.thumbnails import Thumbnails, side_of
from sfm_match.store.columns import Names

_PARTNERS = 20  # of each image


def large_facts(count: int) -> Facts:
    """A walk of so many images around a place: all registered, as much of everything as a report shows."""
    random, points = np.random.default_rng(0), min(POINTS, 1000 * count)
    names = [f"image{number:05d}.jpg" for number in range(count)]
    first = np.repeat(np.arange(count), _PARTNERS)
    second = first + np.tile(np.arange(1, _PARTNERS + 1), count)
    accepted = np.column_stack((first, second, random.integers(20, 900, len(first))))[second < count]
    accepted = accepted[np.argsort(-accepted[:, 2], kind="stable")]
    nothing = np.empty((0, 3), np.int64)
    keypoints = np.full(count, 4096, np.int64)
    tried = np.bincount(accepted[:, :2].ravel(), minlength=count)
    verdicts = {"accepted": len(accepted)}
    matching = Matching(keypoints, tried, tried, accepted, nothing, verdicts, np.zeros(count, np.int64), [])
    per_image = PerImage.of(count)
    per_image.model[:], per_image.points[:] = 0, 800
    per_image.error[:] = random.gamma(4, 0.1, count)
    summary = {
        "models": [{"registered": count, "points": points, "track_length": 4.0, "reprojection_error": 0.4, "odd": []}]
    }
    return Facts(
        Path("/nowhere"),
        Path("/nowhere/images"),
        Names(names),
        {name: Header(4000, 3000) for name in names},
        keypoints=keypoints,
        listed=len(accepted),
        matching=matching,
        drawn=_drawn(count, len(accepted), random),
        measured=Measured(per_image, [_scene(count, points, random)]),
        summary=summary,
        thumbnails=_thumbnails(names, random),
    )


def _drawn(count: int, pairs: int, random: np.random.Generator) -> Drawn:
    each, lines = min(KEYPOINTS // count, 4096), min(MATCHES // max(pairs, 1), 400)
    return Drawn(
        np.arange(0, each * count + 1, each, dtype=np.uint32),
        random.integers(0, 65536, (each * count, 2), np.uint16),
        np.arange(0, lines * pairs + 1, lines, dtype=np.uint32),
        random.integers(0, 65536, (lines * pairs, 4), np.uint16),
    )


def _scene(count: int, points: int, random: np.random.Generator) -> Scene:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    outward = np.stack((np.cos(angle), np.sin(angle), 0 * angle), axis=1)
    down = np.tile((0.0, 0.0, -1.0), (count, 1))
    axes = np.stack((np.cross(down, -outward), down, -outward), axis=1)
    return Scene(
        points,
        [-1.0, -1.0, -0.3],
        [1.0, 1.0, 0.3],
        random.integers(0, 65536, (points, 3), np.uint16),
        random.integers(0, 256, (points, 3), np.uint8),
        [0.0, 0.0, 1.0],
        list(range(count)),
        (3 * outward).astype(np.float32),
        axes.astype(np.float32),
        np.full((count, 2), 0.5, np.float32),
    )


def _thumbnails(names: list[str], random: np.random.Generator) -> Thumbnails:
    side = side_of(len(names), THUMBNAIL_BYTES)
    coarse = random.integers(0, 256, (24, 32, 3), np.uint8)
    pictures = {}
    for number, name in enumerate(names):
        image = cv2.resize(np.roll(coarse, number, axis=1), (side, side * 3 // 4), interpolation=cv2.INTER_CUBIC)
        noise = cv2.add(image, random.integers(0, 40, image.shape, np.uint8))
        pictures[name] = cv2.imencode(".jpg", noise, [1, 70])[1].tobytes()
    return Thumbnails(side, pictures, 0, 0)
