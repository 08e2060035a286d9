"""Colours of points that only HEIC and AVIF images show: COLMAP reads neither format, and leaves such points black."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.files import ImageError, decode, is_heif

if TYPE_CHECKING:
    import pycolmap


def colour_points(models: Iterable["pycolmap.Reconstruction"], folder: Path) -> None:
    """Gives black points the mean colour of the pixels where such images observe them, as COLMAP does with others.

    Args:
        models: to change.
        folder: of the images. One that cannot be read any more is left out.
    """
    for model in models:
        seen: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        for image in model.images.values():
            if not is_heif(image.name):
                continue
            try:
                pixels = decode(folder / image.name)
            except ImageError:
                continue
            for point in image.points2D:
                if point.has_point3D() and not model.points3D[point.point3D_id].color.any():
                    x, y = np.clip(point.xy.astype(int), 0, (pixels.shape[1] - 1, pixels.shape[0] - 1))
                    seen[point.point3D_id].append(pixels[y, x])
        for number, colours in seen.items():
            model.points3D[number].color = np.mean(colours, axis=0).round().astype(np.uint8)
