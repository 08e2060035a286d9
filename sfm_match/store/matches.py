"""Matches of a block of pairs, packed: one dataset for all pairs, offsets between them."""

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
    scores: NDArray[np.float16]  # (M,) probability


@dataclass(frozen=True)
class BlockHead:
    """Which pairs a file of matches holds, without their matches."""

    fingerprint: str
    images: dict[str, str]  # name -> signature of the file whose features were matched
    pairs: NDArray[np.int32]  # (P, 2) rows of `images`

    def pair_codes(self, rank: Mapping[str, int], signatures: Mapping[str, str]) -> NDArray[np.int64]:
        """(P,) `rank of the first * len(rank) + rank of the second`, or -1 where an image has changed since.

        Args:
            rank: place of each image of the collection.
            signatures: of the images that have features now.
        """
        current = [rank[name] if signatures.get(name) == was else -1 for name, was in self.images.items()]
        ranks = np.array(current, np.int64)[self.pairs]  # (P, 2)
        return np.where((ranks >= 0).all(axis=1), ranks @ (len(rank), 1), -1)


@dataclass(frozen=True)
class PairBlock(BlockHead):
    """A file of matches in memory: what one unit of matching made."""

    matches: list[Matches]  # P


def write_block(path: Path, block: PairBlock) -> None:
    counts = np.array([0, *(len(m.indices) for m in block.matches)], np.int64)
    arrays: dict[str, NDArray[Any] | list[str]] = {
        "names": list(block.images),
        "signatures": list(block.images.values()),
        "pairs": block.pairs,
        "offsets": counts.cumsum(),
        "matches": np.concatenate((np.empty((0, 2), np.uint32), *(m.indices for m in block.matches))),
        "scores": np.concatenate((np.empty(0, np.float16), *(m.scores for m in block.matches))),
    }
    write_shard(path, arrays, {"fingerprint": block.fingerprint})


def read_head(path: Path) -> BlockHead:
    """Raises ShardError where the file cannot be read."""
    with open_shard(path) as file:
        images = dict(zip(read_strings(file, "names"), read_strings(file, "signatures"), strict=True))
        return BlockHead(str(file.attrs["fingerprint"]), images, file["pairs"][()])


def read_matches(path: Path) -> list[Matches]:
    """Of each pair of a file, in the order of its head's `pairs`. Raises ShardError where it cannot be read."""
    with open_shard(path) as file:
        indices, scores = file["matches"][()], file["scores"][()]
        return [Matches(indices[a:b], scores[a:b]) for a, b in pairwise(file["offsets"][()].tolist())]


def read_block(path: Path) -> PairBlock:
    """Head and matches. Raises ShardError where the file cannot be read."""
    head = read_head(path)
    return PairBlock(head.fingerprint, head.images, head.pairs, read_matches(path))
