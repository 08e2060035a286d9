"""`--quality`: presets of the size of images and the number of keypoints, by the names that COLMAP users know."""

from typing import NamedTuple


class Quality(NamedTuple):
    """Options that a quality sets, by their names."""

    size: int  # long side, pixels
    max_keypoints: int


MEDIUM = "medium"
QUALITIES = {
    "low": Quality(640, 2048),
    MEDIUM: Quality(1024, 4096),
    "high": Quality(1600, 8192),
    "extreme": Quality(2400, 16384),
}


class ByQuality(int):
    """A number that nobody gave: a quality sets it, where one that was given, even an equal one, stays."""
