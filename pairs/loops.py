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
    every = sequences(names)
    # one line of seats, with empty ones between the sequences: two sequences are no neighbours
    empty = [-1] * overlap
    seats = np.array([*empty, *(seat for sequence in every for seat in (*sequence, *empty))])
    place = np.empty(len(names), np.int64)
    place[seats[seats >= 0]] = np.flatnonzero(seats >= 0)
    queries = sorted(image for sequence in every for image in sequence[::period])
    around = np.arange(-overlap, overlap + 1)

    def neighbours(rows: Images) -> NDArray[np.bool_]:
        near = np.zeros((len(rows), len(names) + 1), bool)  # the last column is for empty seats
        near[np.arange(len(rows))[:, None], seats[place[rows][:, None] + around]] = True
        return near[:, :-1]

    return retrieval(vectors, num_images, np.array(queries, np.int32), forbidden=neighbours)
