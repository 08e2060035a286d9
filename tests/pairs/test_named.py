"""Lists of names, and prefixes."""

from pathlib import Path

import pytest

from pairs import PairsError
from pairs.listed import listed
from pairs.named import chosen

NAMES = ["#top.jpg", "day/a b.jpg", "day/a.jpg", "night/c, d.jpg", "night/ü.jpg"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.txt"


def test_prefixes() -> None:
    assert chosen(NAMES, None, None).tolist() == [0, 1, 2, 3, 4]
    assert chosen(NAMES, "night/", None).tolist() == [3, 4]
    with pytest.raises(PairsError, match="no image's name begins with 'dusk'"):
        chosen(NAMES, "dusk", None)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_name_survives(path: Path, end: str) -> None:
    path.write_bytes(("# of images" + end + end.join(NAMES[::-1]) + end).encode("utf-8-sig"))
    assert chosen(NAMES, None, path).tolist() == [0, 1, 2, 3, 4]
    assert chosen(NAMES, "day", path).tolist() == [1, 2]


def test_lists_of_images_with_cameras(path: Path) -> None:
    path.write_text("day/a b.jpg SIMPLE_RADIAL 1600 1200 1000 800 600 0.1\nnight/c, d.jpg\tPINHOLE 1 1 1 1 1 1\n")
    assert chosen(NAMES, None, path).tolist() == [1, 3]


def test_what_is_wrong_is_said(path: Path) -> None:
    path.write_text("day/a.jpg\nday/b.jpg\n")
    with pytest.raises(PairsError, match=r"1 names are not in the collection: 'day/b.jpg' .line 2; nearest is 'day/a"):
        chosen(NAMES, None, path)
    path.write_text("day/a.jpg\n")
    with pytest.raises(PairsError, match="begins with 'night' and is in"):
        chosen(NAMES, "night", path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PairsError, match="not UTF-8"):
        chosen(NAMES, None, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a.jpg " * 100_000, "line 1: more than 10,000 characters"),
        (b"a.jpg b.jpg\n\x00\x01\x02", "line 2: a zero byte"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        (b"a.jpg \x1b[31mred.jpg", r"'\\x1b\[31mred.jpg'"),
        (b"a.jpg " + b"x" * 9000, "names are not in the collection"),
        (b"q " * 4000, "does not split into two known names"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "l.txt"
    path.write_bytes(content)
    with pytest.raises(PairsError, match=said) as error:
        list(listed(path, ["a.jpg", "b.jpg"]))
    assert len(str(error.value)) < 300 + len(str(path)) and str(error.value).isprintable()


def test_a_list_of_names_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_bytes(b"a.jpg " * 100_000)
    with pytest.raises(PairsError, match="line 1: more than 10,000 characters"):
        chosen(["a.jpg"], None, path)
