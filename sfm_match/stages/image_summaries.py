"""What strategies look at instead of all features: one vector an image, or a few keypoints of each."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import IO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.prune import KEYPOINTS, Sketches, relative, spread
from pairs.vlad import Codebook, sample_of
from sfm_match.images.collection import UNIT_SIZE
from sfm_match.job.workspace import Workspace
from sfm_match.stages.extract import FeatureSet
from sfm_match.store.features import read_features, unit_path

ALGORITHM = 3  # raise it when the same features come to give other vectors, sketches or pairs
_PER_VECTOR = 1024  # keypoints that a vector is made of
_SAMPLED_IMAGES, _SAMPLED_EACH = 2000, 100  # that the codebook is learned from


def image_vectors(workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int) -> NDArray[np.float16]:
    """(N, turns, V) VLAD vectors of unit length; zeros for an image without features."""
    place = {name: i for i, name in enumerate(names)}
    every = [name for name in names if name in features.counts]
    few = every[:: -(-len(every) // _SAMPLED_IMAGES)]
    described = _read(workspace, features, few, turns, _PER_VECTOR)
    codebook = Codebook.learned(sample_of((one for *_, turned in described for one in turned), _SAMPLED_EACH))
    vectors = np.zeros((len(names), turns, codebook.dimension), np.float16)

    def fill(read: tuple[str, NDArray[np.float32], NDArray[np.float32]]) -> None:
        name, _, turned = read
        vectors[place[name]] = [codebook.vlad(one) for one in turned]

    described = _read(workspace, features, every, turns, _PER_VECTOR)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # products are small
        while some := list(islice(described, UNIT_SIZE)):  # not all at once: they would all be in memory
            list(pool.map(fill, some))
    return vectors


def image_sketches(workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int) -> Sketches:
    """A few keypoints of every image, in nameless files: pages count as memory only while there is enough."""
    place = {name: i for i, name in enumerate(names)}
    every = [name for name in names if name in features.counts]
    counts, width = np.zeros(len(names), np.int64), 0
    folder = workspace.folder
    with tempfile.TemporaryFile(dir=folder) as descriptors, tempfile.TemporaryFile(dir=folder) as places:
        for name, keypoints, turned in _read(workspace, features, every, turns, KEYPOINTS):
            count, width = turned.shape[1:]
            one = np.zeros((turns, KEYPOINTS, width), np.float16)
            one[:, :count] = turned
            _write(descriptors, place[name], one)
            where = np.zeros((KEYPOINTS, 2), np.float16)
            where[:count] = relative(keypoints)
            _write(places, place[name], where)
            counts[place[name]] = count
        return Sketches(
            _mapped(descriptors, (len(names), turns, KEYPOINTS, width)),
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
    workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int, count: int
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Of each image, at most `count` keypoints: (n, 2) x, y in pixels, and (turns, n, D) descriptors."""
    for unit, mine in features.by_unit(names).items():
        for name, stored in read_features(unit_path(workspace.features, unit), mine).items():
            rows = spread(stored.keypoints, count)
            chosen = stored.descriptors[rows].astype(np.float32)
            yield name, stored.keypoints[rows], chosen.reshape(len(chosen), turns, -1).transpose(1, 0, 2)
