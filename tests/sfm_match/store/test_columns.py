"""Columns against lists and dictionaries of the same."""

import pickle
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.store.columns import Column, Computed, Groups, Names, Texts, dense

# any characters, also those that stand for bytes that are no text
TEXT = st.text(st.characters(codec=None, categories=None), max_size=6)
NAMES = st.lists(TEXT, unique=True, max_size=40).map(sorted)


@given(st.lists(TEXT, max_size=40), st.integers(-50, 50), st.integers(-50, 50))
def test_texts_are_a_list_of_strings(texts: list[str], start: int, stop: int) -> None:
    found = Texts(texts)
    assert list(found) == texts
    assert [found[place] for place in range(-len(texts), len(texts))] == 2 * texts
    assert found[start:stop] == texts[start:stop]
    assert found == Texts(texts) != Texts([*texts, ""])
    with pytest.raises(IndexError):
        found[len(texts)]


def test_what_is_computed_is_a_list() -> None:
    asked: list[int] = []

    def square(place: int) -> int:
        asked.append(place)
        return place**2

    squares = Computed(5, square)
    assert (len(squares), squares[-1], squares[1:3]) == (5, 16, [1, 4])
    assert asked == [4, 1, 2]
    assert list(squares) == [0, 1, 4, 9, 16]
    with pytest.raises(IndexError):
        squares[5]


@given(NAMES, TEXT)
def test_names_are_found(names: list[str], other: str) -> None:
    found = Names(names)
    assert [found.find(name) for name in names] == list(range(len(names)))
    assert (other in found) == (other in names)
    assert (found.find(other) is None) == (other not in names)
    assert 5 not in found
    for place, name in enumerate(names):
        assert found.index(name) == place
    if other not in names:
        with pytest.raises(ValueError, match="not among the names"):
            found.index(other)


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"], ["\ue000", "\udc80"]])
def test_names_out_of_order_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="out of order"):
        Names(names)


@given(NAMES, st.data(), TEXT)
def test_a_column_is_a_dictionary(names: list[str], data: st.DataObject, other: str) -> None:
    held = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=len(names), max_size=len(names)))
    here = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))), bool)
    expected = {name: value for name, value, one in zip(names, held, here, strict=True) if one}
    whole = Column(Names(names), array("i", held))
    assert dict(whole) == dict(zip(names, held, strict=True))
    column = pickle.loads(pickle.dumps(whole.where(here)))
    assert column == expected
    assert (list(column), list(column.values())) == (list(expected), list(expected.values()))
    assert (list(column.items()), len(column)) == (list(expected.items()), len(expected))
    assert column.get(other) == expected.get(other)
    assert all((name in column) == (name in expected) for name in [*names, other])
    np.testing.assert_array_equal(column.here, here)
    assert dense(column, 7).tolist() == [value if one else 7 for value, one in zip(held, here, strict=True)]
    assert list(column.where(~here)) == []
    if other not in expected:
        with pytest.raises(KeyError):
            column[other]


@given(NAMES, st.data())
def test_groups_are_a_dictionary_of_lists(names: list[str], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(-1, 5), min_size=len(names), max_size=len(names)))
    expected: dict[int, list[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        if number >= 0:
            expected.setdefault(number, []).append(name)
    groups = Groups(Names(names), np.array(numbers, np.int64))
    assert groups == expected
    assert list(groups) == sorted(expected)
    for number in range(-1, 7):
        assert [names[place] for place in groups.places(number)] == expected.get(number, [])
        assert (number in groups) == (number in expected)
    fewer = list(expected)[::-2]
    assert list(groups.only(fewer).items()) == [(number, expected[number]) for number in fewer]
