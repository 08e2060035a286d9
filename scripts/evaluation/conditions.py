"""What a table was measured under."""

import os
import time
from typing import Any

import pycolmap


def conditions(size: int, keypoints: int) -> dict[str, Any]:
    """Date, machine and settings, for the head of a results file.

    Args:
        size: long side of the images, pixels.
        keypoints: of an image, at most.
    """
    return {
        "date": time.strftime("%Y-%m-%d"),
        "size": size,
        "keypoints": keypoints,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "pycolmap": pycolmap.__version__,
    }
