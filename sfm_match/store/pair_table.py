"""Pairs of millions in 4 bytes each: of every place, the places that it makes a pair with."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 16  # pairs


class PairTable:
    """Pairs of places in the names of a collection. They ascend, each is there once, the lower place comes first.

    Args:
        starts: (N + 1,) int64: of each of N places, the first of its pairs; at the end, how many pairs there are.
        others: (P,) int32: the second place of each pair.
    """

    def __init__(self, starts: NDArray[np.int64], others: NDArray[np.int32]) -> None:
        self.starts, self.others = starts, others

    @classmethod
    def of_codes(cls, codes: NDArray[np.int64], count: int) -> "PairTable":
        """Of (P,) codes, which ascend: the first place of a pair * `count` + its second; `count` places."""
        others = np.empty(len(codes), np.int32)
        np.remainder(codes, max(count, 1), out=others, casting="unsafe")  # no other array of millions
        return cls(np.searchsorted(codes, np.arange(count + 1) * count), others)

    @classmethod
    def of_pairs(cls, pairs: NDArray[np.integer], count: int) -> "PairTable":
        """Of (P, 2) pairs in any order, with the lower place first; each is there once."""
        return cls.of_codes(np.sort(pairs.astype(np.int64) @ (count, 1)), count)

    def __len__(self) -> int:
        return len(self.others)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PairTable):
            return NotImplemented
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.others, other.others)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    @property
    def count(self) -> int:
        """How many places there are."""
        return len(self.starts) - 1

    def every(self) -> NDArray[np.int32]:
        """(P, 2) all pairs."""
        firsts = np.repeat(np.arange(self.count, dtype=np.int32), np.diff(self.starts))
        return np.stack((firsts, self.others), axis=1)

    def at(self, numbers: NDArray[np.integer]) -> NDArray[np.int32]:
        """(K, 2) some pairs, by their numbers in the table."""
        firsts = np.searchsorted(self.starts, numbers, side="right") - 1
        return np.stack((firsts.astype(np.int32), self.others[numbers]), axis=1)

    def in_parts(self) -> Iterator[NDArray[np.int32]]:
        """(K, 2) pairs, one stretch of the table after another."""
        for start in range(0, len(self), _AT_ONCE):
            yield self.at(np.arange(start, min(start + _AT_ONCE, len(self))))

    def where(self, wanted: NDArray[np.bool_]) -> "PairTable":
        """Some of the pairs; `wanted` (P,) tells which. The table itself, where they all are."""
        if wanted.all():
            return self
        numbers = np.flatnonzero(wanted)
        return PairTable(np.searchsorted(numbers, self.starts), self.others[numbers])

    def among(self, places: NDArray[np.bool_]) -> "PairTable":
        """Those of some places alone; `places` (N,) tells which."""
        return self.where(np.repeat(places, np.diff(self.starts)) & places[self.others])

    def numbers(self, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
        """(K,) the numbers of (K, 2) pairs; -1 of those that are not in the table, such as with a place of -1."""
        if not len(self):
            return np.full(len(pairs), -1)
        first, second = pairs.T
        known = (first >= 0) & (first < self.count)
        rows = np.where(known, first, 0)
        low, high = self.starts[rows], self.starts[rows + 1] * known
        end = high
        while (open_ := low < high).any():  # all by bisection at once
            middle = (low + high) // 2
            below = open_ & (self.others[np.where(open_, middle, 0)] < second)
            low, high = np.where(below, middle + 1, low), np.where(open_ & ~below, middle, high)
        found = low < end
        found[found] = self.others[low[found]] == second[found]
        return np.where(found, low, -1)
