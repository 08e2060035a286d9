"""Images whose cameras are near one another and look the same way, in a model that exists."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pairs import Block, PairsError
from pairs.deduplicator import PairDeduplicator

Floats = NDArray[np.float64]
_CELLS = 1 << 22  # of a block of distances; 32 MB


def poses(
    centres: Floats,
    directions: Floats,
    num_matched: int = 20,
    rotation_threshold: float = 60.0,
    pose_distance: float | None = None,
) -> Iterator[Block]:
    """Each image with the nearest of those that look the same way.

    Args:
        centres: (N, 3) of projection, NaN where an image has no pose.
        directions: (N, 3) unit vectors in which the cameras look. Turning a camera about them changes no view: in
            raw frames, an upright picture of the same thing is turned by 90 degrees.
        num_matched: of each image, at most.
        rotation_threshold: degrees between directions. hloc takes 30; where cameras stand around a thing, up to 60 %
            of the pairs that share points lie beyond.
        pose_distance: between centres at most, in units of the model.

    Raises:
        PairsError: fewer than two images have a pose.
    """
    known = np.flatnonzero(np.isfinite(centres).all(axis=1))
    if len(known) < 2:
        raise PairsError(f"poses: the model has poses of {len(known)} of the {len(centres)} images")
    places, looks = centres[known] - centres[known].mean(axis=0), directions[known]
    least, most = np.cos(np.radians(rotation_threshold)), np.inf if pose_distance is None else pose_distance
    count = min(num_matched, len(known) - 1)
    deduplicate = PairDeduplicator(len(centres))
    lengths = (places**2).sum(axis=1)
    for rows in np.array_split(np.arange(len(known)), -(-(len(known) ** 2) // _CELLS)):
        squared = lengths[rows, None] + lengths[None] - 2 * places[rows] @ places.T
        squared[looks[rows] @ looks.T < least] = np.inf
        squared[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(squared, count - 1, axis=1)[:, :count]
        allowed = np.take_along_axis(squared, near, axis=1)
        chosen, columns = np.nonzero(np.isfinite(allowed) & (allowed <= most**2))
        yield deduplicate(known[rows[chosen]], known[near[chosen, columns]])
