"""Matching on a GPU: the descriptors of a block of images stay on the device, pairs go through in batches.

The same rule as `sfm_match.matching.dual_softmax`, by `exports.graphs.MatchBlock`; only candidates come back.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from exports.config import PADDING
from sfm_match import parts
from sfm_match.runtime import OutOfMemory, Runtime
from sfm_match.runtime.planning import pairs_a_call
from sfm_match.store.matches import Matches

MORE = 8  # columns beside a descriptor: two that count, and rows stay multiples of 16 bytes, as tensor cores want them
STEP = 1024  # keypoints to which blocks are filled up, so that a collection that grows needs no engine of its own


class BlockMatcher:
    """Matches the pairs of a tile on a device."""

    def __init__(
        self,
        runtime: Runtime,
        threshold: float,
        inverse_temperature: float,
        *,
        images: int,
        keypoints: int,
        dimension: int,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            runtime: the engine.
            threshold, inverse_temperature: as in `dual_softmax.match_descriptors`.
            images: of a tile, at most.
            keypoints: of an image, at most.
            dimension: of a descriptor.
            advance: told how many pairs are done.
        """
        self._runtime, self._threshold, self._inverse_temperature = runtime, threshold, inverse_temperature
        self._keypoints, self._advance = -(-keypoints // STEP) * STEP, advance
        self._pairs = pairs_a_call(runtime.free_memory(), self._keypoints)
        self._session = runtime.load(parts.match_block(images, self._keypoints, dimension + MORE, self._pairs))

    @property
    def note(self) -> str:
        """What the engine chose to match with, where it had a choice; empty otherwise."""
        return str(getattr(self._session, "note", ""))

    def match(self, descriptors: Sequence[NDArray[np.float16]], pairs: NDArray[np.int32]) -> list[Matches]:
        """
        Args:
            descriptors: (N, D) float16 of each image of the tile, unit length.
            pairs: (P, 2) places in it.

        Returns:
            As `dual_softmax.match_descriptors`, of each pair.
        """
        engine = self._runtime
        block = engine.put("descriptors", packed(descriptors, self._keypoints))
        temperature = engine.put("inverse_temperature", np.array([self._inverse_temperature], np.float32))
        found: list[Matches] = []
        while len(found) < len(pairs):
            left = len(pairs) - len(found)
            count = min(self._pairs, 1 << (left - 1).bit_length())  # another lane may halve the first
            part = pairs[len(found) : len(found) + count]
            # the last call is filled up to a power of two: shapes stay few, and are replayed
            filled = np.concatenate((part, np.repeat(part[-1:], count - len(part), axis=0))).astype(np.int64)
            feeds = {"descriptors": block, "pairs": engine.put("pairs", filled), "inverse_temperature": temperature}
            try:
                result = self._session.run(feeds)
                places, scores = engine.get(result["places"]), engine.get(result["scores"])
            except OutOfMemory:
                if count == 1:
                    raise
                self._pairs = min(self._pairs, count // 2)
                continue
            found += [self._kept(places[row], scores[row]) for row in range(len(part))]
            self._advance(len(part))
        return found

    def _kept(self, places: NDArray[np.int32], scores: NDArray[np.float32]) -> Matches:
        rows = np.flatnonzero(scores > self._threshold)
        indices = np.stack((rows, places[rows]), axis=1).astype(np.uint32)
        return Matches(indices, scores[rows].astype(np.float16))


def packed(descriptors: Sequence[NDArray[np.float16]], keypoints: int) -> NDArray[np.float16]:
    """(I, keypoints, D + MORE): descriptors, zeros, and two columns that tell them from padding (`exports.graphs`)."""
    dimension = descriptors[0].shape[1]
    block = np.zeros((len(descriptors), keypoints, dimension + MORE), np.float16)
    block[..., -2], block[..., -1] = PADDING, 1
    for image, mine in zip(block, descriptors, strict=True):
        image[: len(mine), :dimension] = mine
        image[: len(mine), -2] = 0
    return block
