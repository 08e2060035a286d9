"""Matching on a GPU: the descriptors of blocks of images stay on the device, pairs go through in batches.

The same rule as `sfm_match.matching.dual_softmax`, by `exports.graphs.MatchBlock`; only candidates come back.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from exports.graph_constants import PADDING
from sfm_match.features import device_graphs as parts
from sfm_match.matching.matcher import DescriptorsOnly, ImageFeatures, Names
from sfm_match.runtime import OutOfMemory, Runtime, Value
from sfm_match.runtime.planning import pairs_a_call
from sfm_match.store.matches import Matches

MORE = 8  # columns beside a descriptor: two that count, and rows stay multiples of 16 bytes, as tensor cores want them
STEP = 1024  # keypoints to which blocks are filled up, so that a collection that grows needs no engine of its own
GROUPS = 4  # on the device for each thread, of half a block's images each: 69 MB of 32 x 4096 x 264 float16


class BlockMatcher:
    """Matches the pairs of a block on a device: a `matcher.Matcher`."""

    on_device = True

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
        engine: str = "",
    ) -> None:
        """
        Args:
            runtime: the engine.
            threshold, inverse_temperature: as in `dual_softmax.match_descriptors`.
            images: of a block, at most; an even number.
            keypoints: of an image, at most.
            dimension: of a descriptor.
            advance: told how many pairs are done.
            engine: what runs, in words.
        """
        self.engine, self.workers = engine, runtime.workers
        self._runtime, self._threshold, self._inverse_temperature = runtime, threshold, inverse_temperature
        self._keypoints, self._advance = -(-keypoints // STEP) * STEP, advance
        self._pairs = pairs_a_call(runtime.free_memory(), self._keypoints)
        self._half = images // 2
        columns = dimension + MORE
        self._session = runtime.load(parts.match_block(images, self._keypoints, columns, self._pairs))
        self._join = runtime.load(parts.join_groups(self._half, self._keypoints, columns))
        self._mine = threading.local()

    @property
    def note(self) -> str:
        """What the engine chose to match with, where it had a choice; empty otherwise."""
        return str(getattr(self._session, "note", ""))

    def match(self, groups: Sequence[Names], images: ImageFeatures, pairs: NDArray[np.int32]) -> list[Matches]:
        """As `Matcher.match`; at most half a block's images make a group.

        Descriptors are asked for only of groups that are not on the device any more.

        Raises:
            OutOfMemory: the device has no memory for one pair.
        """
        engine = self._runtime
        first, second = groups
        offset = self._half - len(first)  # a group takes half of the block, however many images it has
        pairs = np.where(pairs < len(first), pairs, pairs + offset).astype(np.int64)
        both = {"first": self._group(first, images), "second": self._group(second or first, images)}
        block = self._join.run(both)["descriptors"]
        temperature = engine.put("inverse_temperature", np.array([self._inverse_temperature], np.float32))
        found: list[Matches] = []
        while len(found) < len(pairs):
            left = len(pairs) - len(found)
            count = min(self._pairs, 1 << (left - 1).bit_length())  # another worker may halve the first
            part = pairs[len(found) : len(found) + count]
            # the last call is filled up to a power of two: shapes stay few, and are replayed
            filled = np.concatenate((part, np.repeat(part[-1:], count - len(part), axis=0)))
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

    def match_images(self, descriptors: Sequence[NDArray[np.float16]], pairs: NDArray[np.int32]) -> list[Matches]:
        """As `match`, of images that are in memory: (N, D) float16 of each, (P, 2) places among them."""
        self._mine.__dict__.pop("held", None)  # their names say nothing
        places = tuple(map(str, range(len(descriptors))))
        groups = places[: self._half], places[self._half :]
        images = DescriptorsOnly(lambda names: [descriptors[int(name)] for name in names])
        return self.match(groups, images, pairs)

    def _group(self, names: Names, images: ImageFeatures) -> Value:
        """(half, N, D + MORE) on the device: from there where this thread used it lately, otherwise put there."""
        held: OrderedDict[Names, tuple[str, Value]] = self._mine.__dict__.setdefault("held", OrderedDict())
        if names not in held:
            slot = f"group {len(held)}" if len(held) < GROUPS else held.popitem(last=False)[1][0]
            held[names] = slot, self._runtime.put(slot, packed(images.descriptors(names), self._keypoints, self._half))
        held.move_to_end(names)
        return held[names][1]

    def _kept(self, places: NDArray[np.int32], scores: NDArray[np.float32]) -> Matches:
        rows = np.flatnonzero(scores > self._threshold)
        indices = np.stack((rows, places[rows]), axis=1).astype(np.uint32)
        return Matches(indices, scores[rows].astype(np.float16))


def packed(
    descriptors: Sequence[NDArray[np.float16]], keypoints: int, images: int | None = None
) -> NDArray[np.float16]:
    """(images, keypoints, D + MORE): descriptors, zeros, and two columns that tell them from padding.

    `exports.graphs.MatchBlock` says how. Without `images`: as many as are given.
    """
    dimension = descriptors[0].shape[1]
    block = np.zeros((len(descriptors) if images is None else images, keypoints, dimension + MORE), np.float16)
    block[..., -2], block[..., -1] = PADDING, 1
    for image, mine in zip(block, descriptors, strict=False):
        image[: len(mine), :dimension] = mine
        image[: len(mine), -2] = 0
    return block
