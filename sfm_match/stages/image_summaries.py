"""What strategies look at instead of all features: one vector an image, or a few keypoints of each."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.prune import KEYPOINTS, KeypointSubsets, relative, spread
from pairs.vlad import Codebook, sample_of
from sfm_match.images.collection import UNIT_SIZE
from sfm_match.job.cores import cores
from sfm_match.stages.state import FeatureSet, iter_features
from sfm_match.store.columns import Names
from sfm_match.store.features import Features

ALGORITHM = 4  # raise it when the same features come to give other vectors, subsets or pairs
_PER_VECTOR = 1024  # keypoints that a vector is made of
_SAMPLED_IMAGES, _SAMPLED_EACH = 500, 100  # that the codebook is learned from: 1,500 descriptors a word


class VectorFile:
    """(N, T, V) VLAD vectors in a nameless file (`pairs.retrieval.Vectors`): of 100,000 images they are 400 MB."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is open as long as this is
        self._bytes = 2 * shape[1] * shape[2]  # of an image
        self._one_at_a_time = Lock()
        self._file.truncate(shape[0] * self._bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def write(self, row: int, vectors: NDArray[np.float16]) -> None:
        """(T, V) of an image; from any thread. Raises OSError where the disk is full."""
        with self._one_at_a_time:
            _write(self._file, row, vectors)

    def __getitem__(self, key: tuple[NDArray[np.integer], int]) -> NDArray[np.float16]:
        rows, turn = key
        if len(rows) and (np.diff(rows) == 1).all():  # as they mostly are
            return self._read(int(rows[0]), len(rows))[:, turn]
        found = np.empty((len(rows), self.shape[2]), np.float16)
        for place, row in enumerate(rows.tolist()):
            found[place] = self._read(row, 1)[0, turn]
        return found

    def _read(self, first: int, count: int) -> NDArray[np.float16]:
        found = np.empty((count, *self.shape[1:]), np.float16)
        with self._one_at_a_time:
            self._file.seek(first * self._bytes)
            self._file.readinto(found.view(np.uint16).data)
        return found


def image_vectors(folder: Path, features: FeatureSet, names: Names) -> VectorFile:
    """(N, T, V) VLAD vectors of unit length, one a rotation; zeros for an image without features.

    They lie in a nameless file of `folder`.
    """
    codebook = learned_codebook(features, names)
    vectors = VectorFile(folder, (len(names), features.rotations, codebook.dimension))
    _describe(features, names, codebook, vectors.write)
    return vectors


def learned_codebook(features: FeatureSet, names: Sequence[str]) -> Codebook:
    """From a sample of the images' descriptors. Raises PairsError where there is no descriptor."""
    every = np.flatnonzero([name in features.counts for name in names])
    places = every[np.linspace(0, len(every) - 1, min(len(every), _SAMPLED_IMAGES)).round().astype(int)]
    few = [names[place] for place in places.tolist()]
    described = _read(features, few, _PER_VECTOR)
    return Codebook.learned(sample_of((one for *_, turned in described for one in turned), _SAMPLED_EACH))


def vectors_of(features: FeatureSet, names: Names, codebook: Codebook) -> NDArray[np.float16]:
    """As `image_vectors`, in memory and with words that are there."""
    vectors = np.zeros((len(names), features.rotations, codebook.dimension), np.float16)
    _describe(features, names, codebook, vectors.__setitem__)
    return vectors


def _describe(
    features: FeatureSet,
    names: Names,
    codebook: Codebook,
    write: Callable[[int, NDArray[np.float16]], None],
) -> None:
    """Gives the place and the (T, V) vectors of each image that has features to `write`, from several threads."""

    def fill(read: tuple[str, NDArray[np.float32], NDArray[np.float32]]) -> None:
        name, _, turned = read
        write(names.index(name), np.array([codebook.vlad(one) for one in turned], np.float16))

    described = _read(features, _with_features(features, names), _PER_VECTOR)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:  # products are small
        while some := list(islice(described, UNIT_SIZE)):  # not all at once: they would all be in memory
            list(pool.map(fill, some))


def vector_of(stored: Features, rotations: int, codebook: Codebook) -> NDArray[np.float16]:
    """(T, V) of one image, as in `image_vectors`."""
    _, turned = _chosen(stored, rotations, _PER_VECTOR)
    return np.array([codebook.vlad(one) for one in turned], np.float16)


def keypoint_subsets(folder: Path, features: FeatureSet, names: Names) -> KeypointSubsets:
    """A few keypoints of every image, in nameless files of `folder`: pages count as memory while there is enough."""
    rotations = features.rotations
    every = _with_features(features, names)
    counts, width = np.zeros(len(names), np.int64), 0
    with tempfile.TemporaryFile(dir=folder) as descriptors, tempfile.TemporaryFile(dir=folder) as places:
        for name, keypoints, turned in _read(features, every, KEYPOINTS):
            place, (count, width) = names.index(name), turned.shape[1:]
            one = np.zeros((rotations, KEYPOINTS, width), np.float16)
            one[:, :count] = turned
            _write(descriptors, place, one)
            where = np.zeros((KEYPOINTS, 2), np.float16)
            where[:count] = relative(keypoints)
            _write(places, place, where)
            counts[place] = count
        return KeypointSubsets(
            _mapped(descriptors, (len(names), rotations, KEYPOINTS, width)),
            _mapped(places, (len(names), KEYPOINTS, 2)),
            counts,
        )


def _with_features(features: FeatureSet, names: Sequence[str]) -> list[str] | None:
    """Those that have features; None, for all that have any, where these are among the names."""
    every = sum(name in features.counts for name in names) == len(features.counts)
    return None if every else [name for name in names if name in features.counts]


def _write(file: IO[bytes], row: int, values: NDArray[np.float16]) -> None:
    """Written, not mapped: a full disk is an error then, and not a signal."""
    file.seek(row * values.nbytes)
    file.write(values.tobytes())


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.float16]:
    file.truncate(2 * math.prod(shape))
    return np.memmap(file, np.float16, "r", shape=shape)


def _read(
    features: FeatureSet, names: Sequence[str] | None, count: int
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Of each image, at most `count` keypoints: (n, 2) x, y in pixels, and (T, n, D) descriptors of each rotation."""
    for name, stored in iter_features(features, names):
        yield name, *_chosen(stored, features.rotations, count)


def _chosen(stored: Features, rotations: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 2) and (T, n, D) of `_read`."""
    rows = spread(stored.keypoints, count)
    described = stored.descriptors[rows].astype(np.float32)
    return stored.keypoints[rows], described.reshape(len(described), rotations, -1).transpose(1, 0, 2)
