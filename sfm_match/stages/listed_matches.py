"""The matches of the pairs that `pairs.txt` lists, file by file."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.stages.state import FeatureSet, MatchSet
from sfm_match.store.columns import Column
from sfm_match.store.matches import BlockHead, Matches, PairBlock, read_block, read_head

NamedMatches = tuple[str, str, Matches]


def read_pairs_of(path: Path, features: FeatureSet) -> PairBlock:
    """All of a file: no match is of a keypoint that the features do not have. Raises ShardError."""

    def counts(images: Mapping[str, str]) -> dict[str, int]:
        return {name: features.counts[name] for name, was in images.items() if features.signatures.get(name) == was}

    return read_block(path, counts)


def iter_matches(matches: MatchSet, features: FeatureSet) -> Iterator[NamedMatches]:
    """The matches of the pairs of `pairs.txt`, file by file: both names, and what was found; each pair once.

    Raises:
        ShardError: a file cannot be read.
    """
    wanted = _Wanted(matches, features)
    for path in matches.paths:  # not in the order in which they came
        block = read_pairs_of(path, features)
        yield from _named(block, wanted.of(block))


def listed_blocks(matches: MatchSet, features: FeatureSet) -> Iterator[tuple[Path, BlockHead, NDArray[np.int64]]]:
    """Files, and the numbers of their pairs that `pairs.txt` lists; each pair once. Raises ShardError."""
    wanted = _Wanted(matches, features)
    for path in matches.paths:
        head = read_head(path)
        yield path, head, wanted.of(head)


def named_matches(path: Path, numbers: NDArray[np.int64], features: FeatureSet) -> Iterator[NamedMatches]:
    """Of some pairs of a file, by their numbers in it. Raises ShardError."""
    return _named(read_pairs_of(path, features), numbers)


def _named(block: PairBlock, numbers: NDArray[np.int64]) -> Iterator[NamedMatches]:
    names = list(block.images)
    for number in numbers:
        i, j = block.pairs[number]
        yield names[i], names[j], block.matches[number]


class _Wanted:
    """Which pairs of one file after another are listed, and were not in a file before.

    A part that was taken for dead may match a pair again.
    """

    def __init__(self, matches: MatchSet, features: FeatureSet) -> None:
        self._rank = Column(matches.names, range(len(matches.names)))
        self._pairs, self._signatures = matches.pairs, features.signatures
        self._given = np.zeros(len(matches.pairs), bool)

    def of(self, head: BlockHead) -> NDArray[np.int64]:
        """Numbers of pairs in the file."""
        listed = self._pairs.numbers(head.places(self._rank, self._signatures))  # -1: not listed
        mine = np.flatnonzero(listed >= 0)
        new = mine[~self._given[listed[mine]]]
        self._given[listed[new]] = True
        return new
