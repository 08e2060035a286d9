"""Pairs in 4 bytes each: the same as a sorted list of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.store import pair_table as module
from sfm_match.store.pair_table import PairTable

Pair = tuple[int, int]


@st.composite
def pairs_of_some(draw: st.DrawFn) -> tuple[int, list[Pair]]:
    """How many places, and pairs of them, as they came."""
    count = draw(st.integers(0, 12))
    every = [(i, j) for i in range(count) for j in range(i + 1, count)]
    return count, draw(st.lists(st.sampled_from(every), unique=True)) if every else []


def table_of(count: int, pairs: list[Pair]) -> PairTable:
    return PairTable.of_pairs(np.array(pairs, np.int64).reshape(-1, 2), count)


def listed(pairs: np.ndarray) -> list[Pair]:
    return [(i, j) for i, j in pairs.tolist()]


@given(given_=pairs_of_some())
def test_a_table_holds_its_pairs_in_order(given_: tuple[int, list[Pair]]) -> None:
    count, pairs = given_
    table = table_of(count, pairs)
    assert (len(table), table.count) == (len(pairs), count)
    assert listed(table.every()) == sorted(pairs)
    assert table.every().dtype == table.others.dtype == np.int32
    codes = np.array(sorted(i * count + j for i, j in pairs), np.int64)
    assert listed(PairTable.of_codes(codes, count).every()) == sorted(pairs)


@given(given_=pairs_of_some(), asked=st.lists(st.tuples(st.integers(-1, 12), st.integers(-1, 12))))
def test_pairs_are_found(given_: tuple[int, list[Pair]], asked: list[Pair]) -> None:
    count, pairs = given_
    order = sorted(pairs)
    found = table_of(count, pairs).numbers(np.array(asked, np.int64).reshape(-1, 2))
    assert found.tolist() == [order.index(one) if one in order else -1 for one in asked]


@given(given_=pairs_of_some(), seed=st.integers(0, 99))
def test_some_pairs_make_a_table(given_: tuple[int, list[Pair]], seed: int) -> None:
    count, pairs = given_
    rng, order, table = np.random.default_rng(seed), sorted(pairs), table_of(count, pairs)
    wanted = rng.random(len(order)) < 0.5
    fewer = table.where(wanted)
    assert listed(fewer.every()) == [pair for pair, one in zip(order, wanted, strict=True) if one]
    assert fewer.numbers(np.array(order, np.int64).reshape(-1, 2)).tolist() == [
        int(wanted[:place].sum()) if one else -1 for place, one in enumerate(wanted)
    ]
    places = rng.random(count) < 0.7
    assert listed(table.among(places).every()) == [(i, j) for i, j in order if places[i] and places[j]]
    numbers = rng.permutation(len(order))
    assert listed(table.at(numbers)) == [order[number] for number in numbers]


def test_all_of_a_table_is_the_table() -> None:
    table = table_of(3, [(0, 1), (1, 2)])
    assert table.where(np.ones(2, bool)) is table


def test_parts_are_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    every = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    parts = list(table_of(6, every).in_parts())
    assert [len(part) for part in parts] == [4, 4, 4, 3]
    assert listed(np.concatenate(parts)) == every
