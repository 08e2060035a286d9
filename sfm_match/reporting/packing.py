"""Numbers for the page: arrays as their bytes, points as 16 bits of their range, and how much of everything is shown.

A report holds 2 to 5,000 images in at most 50 MB. The budgets below are shares of that; what they cut is said on the
page.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.store.columns import Computed

THUMBNAIL_BYTES = 16_000_000  # of all photographs, as JPEG
POINTS = 300_000  # of all models, 9 bytes each
KEYPOINTS = 1_000_000  # of all images, 4 bytes each
MATCHES = 500_000  # of all pairs, 8 bytes each
PAIRS = 400_000  # accepted ones, 8 bytes each
REJECTED = 200_000  # pairs, 5 bytes each
OBSERVATIONS = 2_000_000  # whose residuals are measured
FULL = 65535  # of 16 bits


def packed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(B,) bytes of an array, little-endian, in C order; mostly those of the array itself. The page knows its type."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def quantised(
    points: NDArray[np.floating], low: NDArray[np.floating], high: NDArray[np.floating]
) -> NDArray[np.uint16]:
    """(N, D) points as 16 bits of the range from `low` to `high` (D,); those outside are moved to its edge."""
    step = np.where(high > low, high - low, 1.0)
    return np.asarray(np.clip(np.round((points - low) / step * FULL), 0, FULL), np.uint16)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Places of at most `most` of `count` things, evenly apart."""
    return np.linspace(0, count - 1, min(count, max(most, 0))).round().astype(np.int64)


def numbers(values: NDArray[np.integer]) -> Computed[int]:
    """Of JSON."""
    return Computed(len(values), values.item)


def or_none(values: NDArray[np.floating], digits: int) -> Computed[float | None]:
    """Rounded numbers; None for NaN, which JSON lacks."""

    def number(place: int) -> float | None:
        return round(float(values[place]), digits) if np.isfinite(values[place]) else None

    return Computed(len(values), number)
