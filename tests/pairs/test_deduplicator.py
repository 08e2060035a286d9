"""Pairs that come from both of their images are given once."""

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pairs import deduplicator as module
from pairs.deduplicator import PairDeduplicator

COUNT = 9
IMAGES = st.integers(0, COUNT - 1)
BLOCKS = st.lists(st.lists(st.tuples(IMAGES, IMAGES), max_size=12), max_size=6)


@given(blocks=BLOCKS, codes=st.sampled_from([1, 2 * COUNT, 5 * COUNT + 3, 1 << 32]))
def test_each_pair_is_given_when_it_first_comes(blocks: list[list[tuple[int, int]]], codes: int) -> None:
    with mock.patch.object(module, "_CODES", codes):  # parts of one first image, of some, of all
        deduplicate = PairDeduplicator(COUNT)
        before: set[tuple[int, int]] = set()
        for block in blocks:
            here, there = np.array(block, np.int64).reshape(-1, 2).T
            canonical = {(min(pair), max(pair)) for pair in block if pair[0] != pair[1]}
            found = deduplicate(here, there)
            assert found.dtype == np.int32
            assert found.tolist() == [list(pair) for pair in sorted(canonical - before)]
            before |= canonical


def test_codes_of_a_hundred_thousand_images_fit() -> None:
    """Where one part ends and the next begins, and at the end of all."""
    count = 100_000
    first = np.array([0, 42_948, 42_949, 42_950, 85_898, 85_899, count - 2])
    second = np.full(len(first), count - 1)
    deduplicate = PairDeduplicator(count)
    assert deduplicate(second, first).tolist() == np.stack((first, second), axis=1).tolist()
    assert len(deduplicate(first, second)) == 0


def test_no_images_have_no_pairs() -> None:
    nothing = np.empty(0, np.int64)
    assert PairDeduplicator(0)(nothing, nothing).shape == (0, 2)
