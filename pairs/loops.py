"""Loop detection, as COLMAP does it for sequences: now and then an image is compared with all others."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from pairs.retrieval import Images, Vectors, retrieval
from pairs.sequential import sequences


def loop_detection(
    names: Sequence[str],
    vectors: Vectors,
    overlap: int,
    loop_detection_period: int = 10,
    loop_detection_num_images: int = 50,
) -> Iterator[Block]:
    """Every `loop_detection_period`-th image of each sequence with the images most like it that are not its neighbours.

    Args:
        names: sorted names; a folder is one sequence.
        vectors: (N, T, V) as in `retrieval`.
        overlap: neighbours up to this many places away are `sequential`'s.
        loop_detection_period: images from one that is compared to the next.
        loop_detection_num_images: of each image that is compared.
    """
    every = sequences(names)
    # one line of seats, with empty ones between the sequences: two sequences are no neighbours
    empty = [-1] * overlap
    seats = np.array([*empty, *(seat for sequence in every for seat in (*sequence, *empty))])
    place = np.empty(len(names), np.int64)
    place[seats[seats >= 0]] = np.flatnonzero(seats >= 0)
    queries = sorted(image for sequence in every for image in sequence[::loop_detection_period])
    around = np.arange(-overlap, overlap + 1)

    def neighbours(rows: Images) -> NDArray[np.bool_]:
        near = np.zeros((len(rows), len(names) + 1), bool)  # the last column is for empty seats
        near[np.arange(len(rows))[:, None], seats[place[rows][:, None] + around]] = True
        return near[:, :-1]

    return retrieval(vectors, loop_detection_num_images, np.array(queries, np.int32), forbidden=neighbours)


def most_pairs(count: int, loop_detection_period: int, loop_detection_num_images: int) -> int:
    """How many pairs `loop_detection` gives of so many images, at most."""
    return -(-count // loop_detection_period) * loop_detection_num_images
