"""Records as columns give back what they were made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.images.files import Header
from sfm_match.images.image_table import ImageRecord, ImageTable

NUMBER = st.floats(allow_nan=False, width=64)
HEADER = st.builds(
    Header,
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(1, 8),
    st.sampled_from(["", "Nikon D90", "ü"]),
    st.none() | NUMBER,
    st.none() | st.tuples(NUMBER, NUMBER, st.none() | NUMBER),
    st.sampled_from(["", "a focal length of 0"]),
)
GOOD = st.builds(ImageRecord, st.text(max_size=5), st.text(max_size=5), st.integers(0, 2**32), HEADER, st.none())
BAD = st.builds(ImageRecord, st.text(max_size=5), st.text(max_size=5), st.none(), st.none(), st.text(max_size=5))


@given(st.lists(GOOD | BAD, unique_by=lambda record: record.name, max_size=30))
def test_records_come_back_by_name(records: list[ImageRecord]) -> None:
    expected = sorted(records, key=lambda record: record.name)
    table = ImageTable(expected)
    assert list(table) == expected
    assert table[:] == expected
    assert list(ImageTable(table)) == expected
    assert list(table.names) == [record.name for record in expected]


@pytest.mark.parametrize("names", ["aa", "ba"])
def test_two_of_one_name_and_other_orders_are_refused(names: str) -> None:
    with pytest.raises(ValueError, match=r"out of order after '[ab]', or there twice"):
        ImageTable(ImageRecord(name, "1:1", None, None, "not an image") for name in names)
