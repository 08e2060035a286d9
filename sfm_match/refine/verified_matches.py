"""Keypoints and verified matches of a database, as the adjustment of keypoints reads them."""

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.queries import MOST_IMAGES, columns, matches_of
from sfm_match.refine.compiled_alignment import Floats


@dataclass(frozen=True)
class Side:
    """An image's part in a pair."""

    name: str
    keypoints: NDArray[np.int64]  # (M,) places among the keypoints of all images
    points: Floats  # (M, 2) raw pixels


class Source:
    """Keypoints and verified matches, by image and pair."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        query = "SELECT image_id, rows FROM keypoints WHERE rows > 0 ORDER BY image_id"
        self.images, counts = columns(connection.execute(query))
        self._starts = np.concatenate(([0], counts.cumsum()))  # each image's part of the keypoints of all
        self.count = int(self._starts[-1])

    def name(self, image: int) -> str:
        """Of an image."""
        ((name,),) = self._connection.execute("SELECT name FROM images WHERE image_id = ?", (image,))
        return str(name)

    def span(self, image: int) -> slice:
        place = int(np.searchsorted(self.images, image))
        return slice(int(self._starts[place]), int(self._starts[place + 1]))

    def load(self, pairs: NDArray[np.int32]) -> list[tuple[Side, Side]]:
        """Of (P, 2) images."""
        images = [int(image) for image in np.unique(pairs)]
        points, names = {one: self.keypoints(one) for one in images}, {one: self.name(one) for one in images}
        loaded = []
        for pair in pairs:
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (int(pair @ (MOST_IMAGES, 1)),))
            rows = matches_of(data).astype(np.int64)
            a, b = (
                Side(names[image], self.span(image).start + rows[:, side], points[image][rows[:, side]])
                for side, image in enumerate(map(int, pair))
            )
            loaded.append((a, b))
        return loaded

    def matched(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(count,) keypoints that are inliers of some pairs, (P,) pair_ids."""
        found = np.zeros(self.count, bool)
        for number in pairs.tolist():
            query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
            ((data,),) = self._connection.execute(query, (number,))
            rows = matches_of(data).astype(np.int64)
            for side, image in enumerate(divmod(number, MOST_IMAGES)):
                found[self.span(image).start + rows[:, side]] = True
        return found

    def keypoints(self, image: int) -> Floats:
        ((data, width),) = self._connection.execute("SELECT data, cols FROM keypoints WHERE image_id = ?", (image,))
        return np.frombuffer(data, np.float32).reshape(-1, width)
