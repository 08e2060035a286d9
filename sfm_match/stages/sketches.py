"""What strategies look at instead of all features: one vector an image, or a few keypoints of each."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs.prune import KEYPOINTS, Sketches, spread
from pairs.vlad import Codebook, sample_of
from sfm_match.collection import UNIT_SIZE
from sfm_match.stages.extract import FeatureSet
from sfm_match.store.features import read_features, unit_path
from sfm_match.workspace import Workspace

ALGORITHM = 1  # raise it when the same features come to give other vectors or sketches
_PER_VECTOR = 1024  # keypoints that a vector is made of
_SAMPLED_IMAGES, _SAMPLED_EACH = 2000, 100  # that the codebook is learned from


def image_vectors(workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int) -> NDArray[np.float16]:
    """(N, turns, V) VLAD vectors of unit length; zeros for an image without features."""
    place = {name: i for i, name in enumerate(names)}
    every = [name for name in names if name in features.counts]
    few = every[:: -(-len(every) // _SAMPLED_IMAGES)]
    described = _read(workspace, features, few, turns, _PER_VECTOR)
    codebook = Codebook.learned(sample_of((one for _, turned in described for one in turned), _SAMPLED_EACH))
    vectors = np.zeros((len(names), turns, codebook.dimension), np.float16)

    def fill(read: tuple[str, NDArray[np.float32]]) -> None:
        name, turned = read
        vectors[place[name]] = [codebook.vlad(one) for one in turned]

    described = _read(workspace, features, every, turns, _PER_VECTOR)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # products are small
        while some := list(islice(described, UNIT_SIZE)):  # not all at once: they would all be in memory
            list(pool.map(fill, some))
    return vectors


def image_sketches(workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int) -> Sketches:
    """A few keypoints of every image, in a nameless file: its pages count as memory only while there is enough."""
    place = {name: i for i, name in enumerate(names)}
    every = [name for name in names if name in features.counts]
    counts, shape = np.zeros(len(names), np.int64), (len(names), turns, KEYPOINTS, 0)
    with tempfile.TemporaryFile(dir=workspace.folder) as file:
        for name, turned in _read(workspace, features, every, turns, KEYPOINTS):
            shape = (*shape[:3], turned.shape[2])
            one = np.zeros(shape[1:], np.float16)
            one[:, : turned.shape[1]] = turned
            # written, not mapped: a full disk is an error then, and not a signal
            file.seek(place[name] * one.nbytes)
            file.write(one.tobytes())
            counts[place[name]] = turned.shape[1]
        file.truncate(2 * math.prod(shape))
        return Sketches(np.memmap(file, np.float16, "r", shape=shape), counts)


def _read(
    workspace: Workspace, features: FeatureSet, names: Sequence[str], turns: int, count: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Of each image, (turns, n, D) descriptors of at most `count` keypoints."""
    for unit, mine in features.by_unit(names).items():
        for name, stored in read_features(unit_path(workspace.features, unit), mine).items():
            chosen = stored.descriptors[spread(stored.keypoints, count)].astype(np.float32)
            yield name, chosen.reshape(len(chosen), turns, -1).transpose(1, 0, 2)
