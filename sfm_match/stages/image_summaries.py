"""What strategies look at instead of all features: one vector an image, or a few keypoints of each."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.prune import KEYPOINTS, KeypointSubsets, relative, spread
from pairs.vlad import Codebook, sample_of
from sfm_match.images.collection import UNIT_SIZE
from sfm_match.job.cores import cores
from sfm_match.stages.state import FeatureSet, iter_features
from sfm_match.store.features import Features

ALGORITHM = 3  # raise it when the same features come to give other vectors, subsets or pairs
_PER_VECTOR = 1024  # keypoints that a vector is made of
_SAMPLED_IMAGES, _SAMPLED_EACH = 2000, 100  # that the codebook is learned from


def image_vectors(features: FeatureSet, names: Sequence[str]) -> NDArray[np.float16]:
    """(N, T, V) VLAD vectors of unit length, one a rotation; zeros for an image without features."""
    return vectors_of(features, names, learned_codebook(features, names))


def learned_codebook(features: FeatureSet, names: Sequence[str]) -> Codebook:
    """From a sample of the images' descriptors. Raises PairsError where there is no descriptor."""
    every = [name for name in names if name in features.counts]
    few = every[:: max(1, -(-len(every) // _SAMPLED_IMAGES))]
    described = _read(features, few, _PER_VECTOR)
    return Codebook.learned(sample_of((one for *_, turned in described for one in turned), _SAMPLED_EACH))


def vectors_of(features: FeatureSet, names: Sequence[str], codebook: Codebook) -> NDArray[np.float16]:
    """As `image_vectors`, with words that are there."""
    place = {name: i for i, name in enumerate(names)}
    vectors = np.zeros((len(names), features.rotations, codebook.dimension), np.float16)

    def fill(read: tuple[str, NDArray[np.float32], NDArray[np.float32]]) -> None:
        name, _, turned = read
        vectors[place[name]] = [codebook.vlad(one) for one in turned]

    described = _read(features, [name for name in names if name in features.counts], _PER_VECTOR)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:  # products are small
        while some := list(islice(described, UNIT_SIZE)):  # not all at once: they would all be in memory
            list(pool.map(fill, some))
    return vectors


def vector_of(stored: Features, rotations: int, codebook: Codebook) -> NDArray[np.float16]:
    """(T, V) of one image, as in `image_vectors`."""
    _, turned = _chosen(stored, rotations, _PER_VECTOR)
    return np.array([codebook.vlad(one) for one in turned], np.float16)


def keypoint_subsets(folder: Path, features: FeatureSet, names: Sequence[str]) -> KeypointSubsets:
    """A few keypoints of every image, in nameless files of `folder`: pages count as memory while there is enough."""
    rotations = features.rotations
    place = {name: i for i, name in enumerate(names)}
    every = [name for name in names if name in features.counts]
    counts, width = np.zeros(len(names), np.int64), 0
    with tempfile.TemporaryFile(dir=folder) as descriptors, tempfile.TemporaryFile(dir=folder) as places:
        for name, keypoints, turned in _read(features, every, KEYPOINTS):
            count, width = turned.shape[1:]
            one = np.zeros((rotations, KEYPOINTS, width), np.float16)
            one[:, :count] = turned
            _write(descriptors, place[name], one)
            where = np.zeros((KEYPOINTS, 2), np.float16)
            where[:count] = relative(keypoints)
            _write(places, place[name], where)
            counts[place[name]] = count
        return KeypointSubsets(
            _mapped(descriptors, (len(names), rotations, KEYPOINTS, width)),
            _mapped(places, (len(names), KEYPOINTS, 2)),
            counts,
        )


def _write(file: IO[bytes], row: int, values: NDArray[np.float16]) -> None:
    """Written, not mapped: a full disk is an error then, and not a signal."""
    file.seek(row * values.nbytes)
    file.write(values.tobytes())


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.float16]:
    file.truncate(2 * math.prod(shape))
    return np.memmap(file, np.float16, "r", shape=shape)


def _read(
    features: FeatureSet, names: Sequence[str], count: int
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Of each image, at most `count` keypoints: (n, 2) x, y in pixels, and (T, n, D) descriptors of each rotation."""
    for name, stored in iter_features(features, names):
        yield name, *_chosen(stored, features.rotations, count)


def _chosen(stored: Features, rotations: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 2) and (T, n, D) of `_read`."""
    rows = spread(stored.keypoints, count)
    described = stored.descriptors[rows].astype(np.float32)
    return stored.keypoints[rows], described.reshape(len(described), rotations, -1).transpose(1, 0, 2)
