"""Colours of points.

COLMAP reads every photograph whole for them as it places its image, leaves those points black that it finds later, and
reads neither HEIC nor AVIF. As few photographs as show all points will do, and large JPEGs are decoded at a part of
their size.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, KeysView
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.files import ImageError, decode

if TYPE_CHECKING:
    import pycolmap

_Seen = dict[int, NDArray[np.float64]]  # point3D_id -> (2,) where an image observes it, in shares of its sides
_LEAST = (480, 480)  # pixels of an image that will do: a large JPEG is decoded smaller then


def colour_points(models: Iterable["pycolmap.Reconstruction"], folder: Path) -> None:
    """Gives black points the mean colour of the pixels where images observe them. As few images as will do are read.

    Args:
        models: to change.
        folder: of the images. One that cannot be read any more is left out.
    """
    for model in models:
        views = _views(model)
        colours: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        for name, pixels in _few(views, folder, colours.keys()):
            size = pixels.shape[1::-1]
            for number, xy in views[name].items():
                x, y = np.clip((xy * size).astype(int), 0, np.subtract(size, 1))
                colours[number].append(pixels[y, x])
        for number, found in colours.items():
            model.points3D[number].color = np.mean(found, axis=0).round().astype(np.uint8)


def _views(model: "pycolmap.Reconstruction") -> dict[str, _Seen]:
    """The black points that each image observes."""
    views: dict[str, _Seen] = defaultdict(dict)
    for number, point in model.points3D.items():
        if not point.color.any():
            for one in point.track.elements:
                image = model.images[one.image_id]
                camera = model.cameras[image.camera_id]
                views[image.name][number] = image.point2D(one.point2D_idx).xy / (camera.width, camera.height)
    return views


def _few(views: dict[str, _Seen], folder: Path, coloured: KeysView[int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Images that show all points between them, the one that shows most of those that are left first."""
    queue = [(-len(seen), name) for name, seen in views.items()]
    heapq.heapify(queue)
    while queue:
        name = queue[0][1]
        left = len(views[name].keys() - coloured)
        if left < -queue[0][0]:  # counted before others were read
            heapq.heapreplace(queue, (-left, name))
            continue
        heapq.heappop(queue)
        if not left:
            return
        try:
            yield name, decode(folder / name, _LEAST)
        except ImageError:
            continue
