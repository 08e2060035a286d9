"""LightGlue as a matcher: the pairs of a block go through the network in batches, on any engine.

It looks at all keypoints of two images with their positions, where the dual softmax looks at descriptors alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.coordinates import centred_upright
from sfm_match.matching.matcher import ImageFeatures, Matcher, MatchSettings, Names
from sfm_match.matching.on_device import STEP
from sfm_match.models.engines import runtime_for
from sfm_match.models.lightglue import chosen_weights, prepared_lightglue
from sfm_match.runtime import OutOfMemory, Part, Runtime, Shapes
from sfm_match.runtime.planning import pairs_a_call
from sfm_match.store.matches import Matches

_MATRICES = 4  # times as many (N, N) matrices of a pair as the dual softmax holds at once: one for each head


def create(settings: MatchSettings, device: str, advance: Callable[[int], None]) -> Matcher:
    """As `matcher.create_matcher`.

    Raises:
        NothingDone: the weights are not here, or torch is not there to convert them.
        UsageError: weights for other descriptors.
    """
    runtime, choice = runtime_for(device)
    weights = chosen_weights(settings.options, settings.lightglue)
    path = prepared_lightglue(weights, settings.options.weights_dir, settings.dimension)
    return LightGlueMatcher(runtime, path, weights, settings, advance, choice.note)


class LightGlueMatcher:
    """Matches the pairs of a block: a `matcher.Matcher`."""

    note = ""

    def __init__(
        self,
        runtime: Runtime,
        path: Path,
        weights: Path,
        settings: MatchSettings,
        advance: Callable[[int], None] = lambda _: None,
        note: str = "",
    ) -> None:
        """
        Args:
            runtime: the engine.
            path: the ONNX file.
            weights: the checkpoint that it was made from, for torch.
            settings: what to match with.
            advance: told how many pairs are done.
            note: on the choice of the engine.
        """
        self.workers, self.on_device = runtime.workers, runtime.on_device
        self.engine = f"LightGlue, {runtime.provider}{note}"
        self._runtime, self._settings, self._advance = runtime, settings, advance
        self._pairs, self._rows = 1, 0
        if runtime.on_device:  # few shapes, and many pairs a call
            self._rows = -(-settings.keypoints // STEP) * STEP
            free = runtime.free_memory()
            self._pairs = pairs_a_call(None if free is None else free // _MATRICES, self._rows)
        self._session = runtime.load(_part(path, weights, self._pairs, max(self._rows, 1), settings.dimension))

    def match(self, groups: Sequence[Names], images: ImageFeatures, pairs: NDArray[np.int32]) -> list[Matches]:
        """As `Matcher.match`.

        Raises:
            OutOfMemory: the device has no memory for one pair.
        """
        names = [name for group in groups for name in group]
        descriptors = images.descriptors(names)
        places = [
            centred_upright(points, (header.width, header.height), header.orientation)
            for points, header in zip(images.keypoints(names), images.headers(names), strict=True)
        ]
        found: list[Matches] = []
        while len(found) < len(pairs):
            part = pairs[len(found) : len(found) + self._pairs]
            try:
                found += self._matched(places, descriptors, part)
            except OutOfMemory:
                if len(part) == 1:
                    raise
                self._pairs = min(self._pairs, len(part) // 2)  # another worker may halve the first
                continue
            self._advance(len(part))
        return found

    def _matched(
        self,
        places: Sequence[NDArray[np.float32]],
        descriptors: Sequence[NDArray[np.float16]],
        pairs: NDArray[np.int32],
    ) -> list[Matches]:
        """Of some pairs, which go through the network at once."""
        engine = self._runtime
        used, among = np.unique(pairs, return_inverse=True)
        given = block_of([places[i] for i in used], [descriptors[i] for i in used], self._rows)
        given["pairs"] = among.reshape(-1, 2).astype(np.int64)
        if engine.on_device:  # to its full size: shapes stay few, and are replayed
            given = _filled(given, self._pairs)
        result = self._session.run({name: engine.put(name, array) for name, array in given.items()})
        partners, scores = engine.get(result["places"]), engine.get(result["scores"])
        return [self._kept(partners[row], scores[row]) for row in range(len(pairs))]

    def _kept(self, partners: NDArray[np.int32], scores: NDArray[np.float32]) -> Matches:
        rows = np.flatnonzero(scores > self._settings.threshold)
        indices = np.stack((rows, partners[rows]), axis=1).astype(np.uint32)
        return Matches(indices, scores[rows].astype(np.float16))


def block_of(
    places: Sequence[NDArray[np.float32]], descriptors: Sequence[NDArray[np.float16]], rows: int
) -> dict[str, NDArray[Any]]:
    """Images as `exports.lightglue.LightGlueBlock` takes them, padded to `rows`, or as far as they need."""
    counts = np.array([len(one) for one in places], np.int64)
    rows = max(rows, int(counts.max()))
    keypoints = np.zeros((len(places), rows, 2), np.float32)
    described = np.zeros((len(places), rows, descriptors[0].shape[1]), np.float16)
    for image, (mine, its) in enumerate(zip(places, descriptors, strict=True)):
        keypoints[image, : len(mine)], described[image, : len(its)] = mine, its
    return {"keypoints": keypoints, "descriptors": described, "counts": counts}


def _filled(given: dict[str, NDArray[Any]], pairs: int) -> dict[str, NDArray[Any]]:
    """With images of zeros, and the last pair again."""
    missing = 2 * pairs - len(given["counts"])
    filled = {name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) for name, array in given.items()}
    again = np.repeat(given["pairs"][-1:], pairs - len(given["pairs"]), axis=0)
    return {**filled, "pairs": np.concatenate((given["pairs"], again))}


def _part(path: Path, weights: Path, pairs: int, rows: int, dimension: int) -> Part:
    """The network, for engines that want to know shapes beforehand."""
    images = 2 * pairs
    profiles: list[Shapes] = [
        {
            "keypoints": ((1, 1, 2), (images, rows, 2), (images, rows, 2)),
            "descriptors": ((1, 1, dimension), (images, rows, dimension), (images, rows, dimension)),
            "counts": ((1,), (images,), (images,)),
            "pairs": ((1, 2), (pairs, 2), (pairs, 2)),
        }
    ]
    return Part(path, partial(_module, weights), ("places", "scores"), exact=False, profiles=profiles)


def _module(weights: Path) -> Any:
    """The network in torch."""
    from exports.lightglue import LightGlueBlock, load_lightglue

    return LightGlueBlock(load_lightglue(weights))
