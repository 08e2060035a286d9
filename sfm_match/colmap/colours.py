"""Colours of points.

COLMAP reads every photograph whole for them as it places its image, leaves those points black that it finds later, and
reads neither HEIC nor AVIF. As few photographs as show all points will do, and large JPEGs are decoded at a part of
their size.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.observations import observations
from sfm_match.images.files import ImageError, decode

if TYPE_CHECKING:
    import pycolmap

_LEAST = (480, 480)  # pixels of an image that will do: a large JPEG is decoded smaller then


@dataclass(frozen=True)
class _Seen:
    """The black points that an image observes."""

    points: NDArray[np.int64]  # (N,) places among the black points
    shares: NDArray[np.float64]  # (N, 2) where, in shares of the image's sides


def colour_points(models: Iterable["pycolmap.Reconstruction"], folder: Path) -> None:
    """Gives black points the mean colour of the pixels where images observe them. As few images as will do are read.

    Args:
        models: to change.
        folder: of the images. One that cannot be read any more is left out.
    """
    for model in models:
        black = np.array(sorted(n for n, point in model.points3D.items() if not any(bytes(point.color))), np.int64)
        sums, counts = np.zeros((len(black), 3)), np.zeros(len(black), np.int64)
        for seen, pixels in _few(_views(model, black), folder, counts):
            size = pixels.shape[1::-1]
            x, y = np.clip((seen.shares * size).astype(int), 0, np.subtract(size, 1)).T
            sums[seen.points] += pixels[y, x]
            counts[seen.points] += 1
        means = (sums / np.maximum(counts, 1)[:, None]).round().astype(np.uint8)
        for place in np.flatnonzero(counts).tolist():
            model.points3D[int(black[place])].color = means[place]


def _views(model: "pycolmap.Reconstruction", black: NDArray[np.int64]) -> dict[str, _Seen]:
    """Of each image, by its name; (P,) black points."""
    views = {}
    for number, observed in observations(model).items() if len(black) else ():
        image = model.images[number]
        camera = model.cameras[image.camera_id]
        place = np.minimum(np.searchsorted(black, observed.points), len(black) - 1)
        ours = black[place] == observed.points
        views[image.name] = _Seen(place[ours], observed.xy[ours] / (camera.width, camera.height))
    return views


def _few(views: dict[str, _Seen], folder: Path, counts: NDArray[np.int64]) -> Iterator[tuple[_Seen, NDArray[np.uint8]]]:
    """Images that show all points between them, the one that shows most of those that are left first.

    `counts`: (P,) how many images have shown each point so far.
    """
    queue = [(-len(seen.points), name) for name, seen in views.items()]
    heapq.heapify(queue)
    while queue:
        name = queue[0][1]
        left = int((counts[views[name].points] == 0).sum())
        if left < -queue[0][0]:  # counted before others were read
            heapq.heapreplace(queue, (-left, name))
            continue
        heapq.heappop(queue)
        if not left:
            return
        try:
            yield views[name], decode(folder / name, _LEAST)
        except (ImageError, OSError):  # a model without colours is one; without files to open it is the last step
            continue
