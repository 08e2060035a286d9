"""Images taken near one another."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from pairs import Block, PairsError
from pairs.deduplicator import PairDeduplicator

Floats = NDArray[np.float64]
_ROWS = 1024  # images looked up at a time
# FLANN's single k-d tree, which is exact; OpenCV is here anyway, scipy would be 140 MB.
_EXACT_TREE: dict[str, bool | int | float | str] = {"algorithm": 4}

# WGS 84 (NIMA TR8350.2): the semi-major axis in metres, and the first eccentricity squared.
_AXIS, _ECCENTRICITY2 = 6378137.0, 6.69437999014e-3


def east_north_up(latitude: Floats, longitude: Floats, altitude: Floats) -> Floats:
    """(N,) degrees, degrees, metres -> (N, 3) metres east, north and up of the middle of those that are known.

    NaN where latitude or longitude is. An altitude that is NaN counts as the mean of the others.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return np.full((len(latitude), 3), np.nan)
    heights = altitude[known & np.isfinite(altitude)]
    height = np.where(np.isfinite(altitude), altitude, heights.mean() if len(heights) else 0.0)
    phi, lam = np.radians(latitude), np.radians(longitude)
    normal = _AXIS / np.sqrt(1 - _ECCENTRICITY2 * np.sin(phi) ** 2)
    across = (normal + height) * np.cos(phi)
    earth = np.stack(
        (across * np.cos(lam), across * np.sin(lam), (normal * (1 - _ECCENTRICITY2) + height) * np.sin(phi)), axis=1
    )
    upward = np.stack((np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)), axis=1)
    middle, up = earth[known].mean(axis=0), upward[known].mean(axis=0)
    up /= np.linalg.norm(up)
    east = np.array([-up[1], up[0], 0.0])
    east = east / np.linalg.norm(east) if np.linalg.norm(east) > 1e-6 else np.array([1.0, 0, 0])  # at a pole
    axes = np.stack((east, np.cross(up, east), up), axis=1)
    return np.asarray((earth - middle) @ axes, np.float64)


def spatial(
    positions: Floats, max_num_neighbors: int = 50, max_distance: float = 100.0, ignore_z: bool = True
) -> Iterator[Block]:
    """Each image with its nearest neighbours.

    Args:
        positions: (N, 3) metres, NaN where unknown.
        max_num_neighbors: of each image.
        max_distance: metres.
        ignore_z: distances along the ground; heights of GPS err most.

    Yields:
        One block for a thousand images.

    Raises:
        PairsError: fewer than two known positions.
    """
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(known) < 2:
        raise PairsError(f"spatial: {len(known)} of {len(positions)} images have a GPS position in their EXIF")
    places = positions[known][:, : 2 if ignore_z else 3].astype(np.float32)  # centimetres at 100 km
    tree = cv2.flann.Index(places, _EXACT_TREE)
    count = min(max_num_neighbors + 1, len(known))  # itself is among them
    deduplicate = PairDeduplicator(len(positions))
    for start in range(0, len(known), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(known)))
        nearest, squared = tree.knnSearch(places[rows], count, params={"checks": -1})
        here, there = np.repeat(rows, count), nearest.ravel()
        near = squared.ravel() <= max_distance**2
        yield deduplicate(known[here[near]], known[there[near]])
