"""Pictures of the evaluations."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """(H, W, 3) BGR, or (H, W) with IMREAD_GRAYSCALE.

    Raises:
        OSError: OpenCV cannot read it.
    """
    image = cv2.imread(str(path), flags)
    if image is None:
        raise OSError(f"{path}: not a readable picture")
    return np.asarray(image, np.uint8)
