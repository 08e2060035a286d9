"""Matches of a block of pairs, packed: a dataset a column for all pairs, offsets between them.

The first column mostly climbs by a few; it is stored as the steps from each row to the next, which deflate well. The
second is no less than noise: it takes as many bits as its largest number. Probabilities keep 8 significant bits of
float16's 11 and are stored as steps below 1: as many bits as the least of them needs. A match takes 3 bytes or so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sfm_match.store.shard import check_bytes, open_shard, read_strings, read_text, write_shard
from sfm_match.store.validation import (
    check_datasets,
    check_indices,
    check_names,
    check_offsets,
    check_pairs,
    check_probabilities,
)

BLOCK_FILE = re.compile(r"\d{5,}-\d{5,}-[0-9a-f]{8}\.h5")  # names of these files: `stages.pair_blocks` gives them
COMMAND = "match"  # makes these files
_ANY = 1 << 32  # keypoints of an image of which it is not known how many it has
_ONE, _NOISE = 0x3C00, 3  # a probability as float16: the bits of 1, and how many of the last ones say nothing


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

    def places(self, rank: Mapping[str, int], signatures: Mapping[str, str]) -> NDArray[np.int64]:
        """(P, 2) the images' places in the collection, -1 for one that has changed since.

        Args:
            rank: place of each image of the collection.
            signatures: of the images that have features now.
        """
        current = [rank[name] if signatures.get(name) == was else -1 for name, was in self.images.items()]
        return np.array(current, np.int64)[self.pairs]


@dataclass(frozen=True)
class PairBlock(BlockHead):
    """A file of matches in memory: what one unit of matching made."""

    matches: list[Matches]  # P


def write_block(path: Path, block: PairBlock) -> None:
    counts = np.array([0, *(len(m.indices) for m in block.matches)], np.int64)
    indices = np.concatenate((np.empty((0, 2), np.uint32), *(m.indices for m in block.matches)))
    indices = indices.astype(np.uint16 if indices.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)
    arrays: dict[str, NDArray[Any] | list[str]] = {
        "names": list(block.images),
        "signatures": list(block.images.values()),
        "pairs": block.pairs,
        "offsets": counts.cumsum(),
        "first_steps": np.diff(indices[:, 0], prepend=indices.dtype.type(0)),  # of an unsigned type: where one is
        "second": indices[:, 1],  # below zero it wraps round, and `cumsum` wraps it back
        "below_one": _below_one(np.concatenate((np.empty(0, np.float16), *(m.scores for m in block.matches)))),
    }
    attributes = {"fingerprint": block.fingerprint}
    write_shard(path, arrays, attributes, deflated=("first_steps",), in_bits=("second", "below_one"))


def _below_one(scores: NDArray[np.float16]) -> NDArray[np.uint16]:
    """(M,) how many numbers of 8 significant bits a probability is below 1; it is within 0.4 % of the nearest."""
    rounded = (scores.view(np.uint16) + (1 << _NOISE - 1)) >> _NOISE  # a carry goes on into the exponent, as it should
    below: NDArray[np.uint16] = np.subtract(_ONE >> _NOISE, rounded, dtype=np.uint16)
    return below


def _scores(file: h5py.File) -> NDArray[np.float16]:
    """(M,) probabilities. Raises ValueError."""
    if "scores" in file:  # until schema 4
        scores: NDArray[np.float16] = file["scores"][()]
    else:
        scores = (((_ONE >> _NOISE) - file["below_one"][()]) << _NOISE).view(np.float16)
    check_probabilities(scores)
    return scores


def check_block(path: Path, counts: Mapping[str, int] | None = None) -> None:
    """Reads and validates all of a file; `counts` as in `read_matches`. Raises ShardError."""
    check_bytes(path, COMMAND)
    read_matches(path, counts)


def read_head(path: Path) -> BlockHead:
    """Raises ShardError where the file is damaged."""
    with open_shard(path, COMMAND, unchecked=True) as file:
        return _validated(file)[0]


def read_matches(path: Path, counts: Mapping[str, int] | None = None) -> list[Matches]:
    """Of each pair of a file, in the order of its head's `pairs`.

    Args:
        path: of the file.
        counts: keypoints of images whose features were matched: none that does not exist is in a match.

    Raises:
        ShardError: the file is damaged.
    """
    return read_block(path, None if counts is None else lambda _: counts).matches


def read_block(path: Path, counts: Callable[[Mapping[str, str]], Mapping[str, int]] | None = None) -> PairBlock:
    """Head and matches. Raises ShardError where the file is damaged.

    Args:
        path: of the file.
        counts: of the file's images and their signatures, keypoints as in `read_matches`.
    """
    with open_shard(path, COMMAND, unchecked=True) as file:
        head, offsets = _validated(file)
        indices, scores = _indices(file), _scores(file)
        if counts is not None:
            known = counts(head.images)
            existing = np.array([known.get(name, _ANY) for name in head.images], np.int64)
            check_indices(indices, offsets, existing[head.pairs])
        matches = [Matches(indices[a:b], scores[a:b]) for a, b in pairwise(offsets.tolist())]
        return PairBlock(head.fingerprint, head.images, head.pairs, matches)


def _indices(file: h5py.File) -> NDArray[np.uint32]:
    """(M, 2)."""
    if "matches" in file:  # until schema 3
        return np.asarray(file["matches"][()], np.uint32)
    steps, second = file["first_steps"][()], file["second"][()]
    indices = np.empty((len(steps), 2), np.uint32)
    indices[:, 0] = np.cumsum(steps, dtype=steps.dtype)
    indices[:, 1] = second
    return indices


def _validated(file: h5py.File) -> tuple[BlockHead, NDArray[np.int64]]:
    """The head of a file, and the (P + 1,) first matches of its pairs. Raises ValueError."""
    scores = ("scores", "float16") if "scores" in file else ("below_one", "uint16")
    images, count, total = len(file["names"]), len(file["pairs"]), len(file[scores[0]])
    columns = {"matches": (total, 2)} if "matches" in file else {"first_steps": (total,), "second": (total,)}
    dtype = "uint16" if file[next(iter(columns))].dtype == np.uint16 else "uint32"
    check_datasets(
        file,
        {
            "names": ("string", (images,)),
            "signatures": ("string", (images,)),
            "pairs": ("int32", (count, 2)),
            "offsets": ("int64", (count + 1,)),
            **{name: (dtype, shape) for name, shape in columns.items()},
            scores[0]: (scores[1], (total,)),
        },
    )
    names = read_strings(file, "names")
    check_names(names)
    pairs, offsets = file["pairs"][()], file["offsets"][()]
    check_pairs(pairs, names)
    check_offsets(offsets, total)
    signatures = dict(zip(names, read_strings(file, "signatures"), strict=True))
    return BlockHead(read_text(file, "fingerprint"), signatures, pairs), offsets
