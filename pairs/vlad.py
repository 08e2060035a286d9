"""An image as one vector: VLAD of its local descriptors, with a codebook learned from the collection.

Each descriptor goes to its nearest word; what is left of it, at unit length, is summed word by word (Jégou et al.,
"Aggregating local descriptors into a compact image representation", CVPR 2010; unit residuals: Delhumeau et al.,
"Revisiting the VLAD image representation", ACM MM 2013). Over six photographed scenes, 32 words and unit residuals told
images of a scene from others best; whitening lost most of it, because a scene is too little to learn it from.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pairs import PairsError

Floats = NDArray[np.float32]
WORDS = 32
WIDTH = 64  # of a local descriptor; wider ones are brought to it by their principal axes
_ROUNDS = 20  # of k-means, at most


class Codebook:
    """Words, and the axes in which they are told apart."""

    def __init__(self, axes: Floats, words: Floats) -> None:
        self.axes = axes  # (D, W)
        self.words = words  # (K, W)

    @property
    def dimension(self) -> int:
        return int(self.words.size)

    @classmethod
    def learned(cls, sample: Floats, words: int = WORDS, seed: int = 0) -> "Codebook":
        """From a sample of the collection's local descriptors.

        Args:
            sample: (S, D) of many images.
            words: at most; a small sample has fewer.
            seed: of the first words.

        Raises:
            PairsError: there is no descriptor.
        """
        if not len(sample):
            raise PairsError("retrieval: no descriptor to learn from; every image is without keypoints")
        axes = np.eye(sample.shape[1], dtype=np.float32)
        if sample.shape[1] > WIDTH:
            spread = np.cov(sample, rowvar=False)
            axes = np.linalg.eigh(spread)[1][:, ::-1][:, :WIDTH].astype(np.float32)
        return cls(axes, kmeans(sample @ axes, words, seed))

    def vlad(self, descriptors: Floats) -> Floats:
        """(N, D) local descriptors of an image -> (K * W,) of unit length, or zeros without any."""
        local = descriptors @ self.axes
        nearest = _nearest(local, self.words)
        residuals = _unit(local - self.words[nearest])
        members = (nearest == np.arange(len(self.words))[:, None]).astype(np.float32)  # (K, N)
        return _unit((members @ residuals).reshape(1, -1)).ravel()


def kmeans(points: Floats, count: int, seed: int = 0) -> Floats:
    """(count, D) centres, fewer where there are fewer different points; equal inputs give equal centres."""
    rng = np.random.default_rng(seed)
    distinct = np.unique(points, axis=0)
    centres = distinct[rng.choice(len(distinct), min(count, len(distinct)), replace=False)]
    nearest = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        before, nearest = nearest, _nearest(points, centres)
        if (before == nearest).all():
            break
        for word in range(len(centres)):
            mine = points[nearest == word]
            # a word that nobody is near to moves to a point, so that none is lost
            centres[word] = mine.mean(axis=0) if len(mine) else distinct[rng.integers(len(distinct))]
    return centres


def sample_of(parts: Iterable[Floats], each: int, seed: int = 0) -> Floats:
    """At most `each` descriptors of every image, chosen by chance."""
    rng = np.random.default_rng(seed)
    chosen = [part[rng.permutation(len(part))[:each]] for part in parts]
    return np.concatenate(chosen) if chosen else np.empty((0, 1), np.float32)


def _nearest(points: Floats, centres: Floats) -> NDArray[np.int64]:
    half = (centres**2).sum(axis=1) / 2
    return np.asarray((points @ centres.T - half).argmax(axis=1), np.int64)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
