"""Loop detection, as COLMAP does it for sequences: now and then an image is compared with all others."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.retrieval import Images, retrieval
from pairs.sequential import sequences


def loop_detection(
    names: Sequence[str], vectors: NDArray[np.floating], overlap: int, period: int = 10, num_images: int = 50
) -> Iterator[Block]:
    """Every `period`-th image of each sequence with the images most like it that are not its neighbours.

    Args:
        names: sorted names; a folder is one sequence.
        vectors: (N, T, V) as in `retrieval`.
        overlap: neighbours up to this many places away are `sequential`'s.
        period: images from one that is compared to the next.
        num_images: of each image that is compared.
    """
    place = np.empty(len(names), np.int64)
    queries = []
    gap = 0  # two sequences are no neighbours
    for sequence in sequences(names):
        place[sequence] = np.arange(len(sequence)) + gap
        gap += len(sequence) + overlap
        queries += sequence[::period]

    def neighbors(rows: Images) -> NDArray[np.bool_]:
        return np.asarray(np.abs(place[rows][:, None] - place[None]) <= overlap)

    return retrieval(vectors, num_images, np.array(sorted(queries), np.int32), forbidden=neighbors)
