"""Matches of a tile of pairs, packed."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.store.shard import open_shard, read_strings, write_shard


@dataclass(frozen=True)
class Matches:
    """Matches of one image pair."""

    indices: NDArray[np.uint32]  # (M, 2) keypoint indices in the first and in the second image
    scores: NDArray[np.float16]  # (M,) dual-softmax probability


@dataclass(frozen=True)
class Tile:
    """A tile's file in memory."""

    fingerprint: str
    images: dict[str, str]  # name -> signature of the file whose features were matched
    pairs: NDArray[np.int32]  # (P, 2) rows of `images`
    matches: list[Matches]  # P; empty when only the head was read

    def pair_codes(self, rank: Mapping[str, int], signatures: Mapping[str, str]) -> NDArray[np.int64]:
        """(P,) `rank of the first * len(rank) + rank of the second`, or -1 where an image has changed since.

        Args:
            rank: place of each image of the collection.
            signatures: of the images that have features now.
        """
        current = [rank[name] if signatures.get(name) == was else -1 for name, was in self.images.items()]
        ranks = np.array(current, np.int64)[self.pairs]  # (P, 2)
        return np.where((ranks >= 0).all(axis=1), ranks @ (len(rank), 1), -1)


def write_tile(path: Path, tile: Tile) -> None:
    counts = np.array([0, *(len(m.indices) for m in tile.matches)], np.int64)
    arrays: dict[str, NDArray[Any] | list[str]] = {
        "names": list(tile.images),
        "signatures": list(tile.images.values()),
        "pairs": tile.pairs,
        "offsets": counts.cumsum(),
        "matches": np.concatenate((np.empty((0, 2), np.uint32), *(m.indices for m in tile.matches))),
        "scores": np.concatenate((np.empty(0, np.float16), *(m.scores for m in tile.matches))),
    }
    write_shard(path, arrays, {"fingerprint": tile.fingerprint})


def read_tile(path: Path, *, head_only: bool = False) -> Tile:
    with open_shard(path) as file:
        images = dict(zip(read_strings(file, "names"), read_strings(file, "signatures"), strict=True))
        matches: list[Matches] = []
        if not head_only:
            indices, scores = file["matches"][()], file["scores"][()]
            matches = [Matches(indices[a:b], scores[a:b]) for a, b in pairwise(file["offsets"][()].tolist())]
        return Tile(str(file.attrs["fingerprint"]), images, file["pairs"][()], matches)
