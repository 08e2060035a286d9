"""What holds for every strategy: no duplicates, no self pairs, canonical order, a subset of exhaustive."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs import PairsError
from pairs.auto import choose, consecutive_share
from pairs.exhaustive import exhaustive
from pairs.listed import listed
from pairs.sequential import natural_key, sequential

NAMES = st.lists(
    st.from_regex(r"[a-c]?/?[a-z ]{0,3}[0-9]{1,3}\.jpg", fullmatch=True), min_size=0, max_size=40, unique=True
).map(sorted)


def flat(blocks) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for block in blocks for i, j in block]


@given(count=st.integers(0, 60), block=st.integers(1, 70))
def test_exhaustive_is_every_pair_once(count: int, block: int) -> None:
    found = flat(exhaustive(count, block))
    assert sorted(found) == list(combinations(range(count), 2))
    assert len(set(found)) == len(found)


def test_exhaustive_streams() -> None:
    # 50,000 images are 1.25 billion pairs: the first blocks come at once and none is large
    blocks = exhaustive(50_000)
    assert all(len(next(blocks)) <= 64 * 64 for _ in range(100))


@given(names=NAMES, overlap=st.integers(1, 12), quadratic=st.booleans())
def test_sequential_is_a_canonical_subset(names: list[str], overlap: int, quadratic: bool) -> None:
    found = flat(sequential(names, overlap, quadratic))
    assert len(set(found)) == len(found)
    assert all(0 <= i < j < len(names) for i, j in found)


def test_sequential_follows_natural_order_within_folders() -> None:
    names = sorted(["a/img1.jpg", "a/img2.jpg", "a/img10.jpg", "b/img3.jpg"])
    found = {(names[i], names[j]) for i, j in flat(sequential(names, overlap=1))}
    assert found == {("a/img1.jpg", "a/img2.jpg"), ("a/img10.jpg", "a/img2.jpg")}


def test_sequential_quadratic_adds_powers_of_two() -> None:
    names = [f"{i:03d}.jpg" for i in range(40)]
    linear, quadratic = (set(flat(sequential(names, 5, q))) for q in (False, True))
    assert {j for i, j in linear if i == 0} == {1, 2, 3, 4, 5}
    assert {j for i, j in quadratic if i == 0} == {1, 2, 3, 4, 5, 8, 16}


@given(st.text(), st.text())
def test_natural_key_tells_names_apart(a: str, b: str) -> None:
    assert (natural_key(a) == natural_key(b)) == (a == b)


def test_natural_key_sorts_numbers_by_value() -> None:
    assert sorted(["img10", "img9", "img1"], key=natural_key) == ["img1", "img9", "img10"]


@given(names=NAMES.filter(lambda n: len(n) >= 2), data=st.data())
def test_list_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, names: list[str], data) -> None:
    every = list(combinations(range(len(names)), 2))
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=20))
    turned = [(j, i) if data.draw(st.booleans()) else (i, j) for i, j in chosen]
    path = tmp_path_factory.mktemp("list") / "pairs.txt"
    path.write_text("# pairs\n\n" + "".join(f"{names[i]}\t{names[j]}\n" for i, j in turned))
    assert sorted(flat(listed(path, names))) == sorted(set(chosen))


def test_list_reads_names_with_spaces_and_windows_lines(tmp_path: Path) -> None:
    names = ["a b.jpg", "c.jpg", "d/ü.jpg"]
    path = tmp_path / "pairs.txt"
    path.write_bytes("a b.jpg c.jpg\r\nc.jpg d/ü.jpg\r\n".encode("utf-8-sig"))
    assert flat(listed(path, names)) == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img_001.jpg imq_002.jpg\nx y\n", "3 names.*'imq_002.jpg' .line 1; nearest is 'img_002.jpg'"),
        ("img_001.jpg img_001.jpg", "line 1: 'img_001.jpg' is paired with itself"),
        ("img_001.jpg", "line 1: expected two names"),
        ("a\tb\tc", "found 3 fields"),
        ("what is this", "does not split into two known names"),
    ],
)
def test_list_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(PairsError, match=message):
        list(listed(path, ["img_001.jpg", "img_002.jpg"]))


def test_list_keeps_names_that_look_like_comments_or_begin_with_a_space(tmp_path: Path) -> None:
    names = sorted([" lead.jpg", "#top.jpg", "z.jpg"])
    path = tmp_path / "pairs.txt"
    path.write_text("# a comment\n#top.jpg\tz.jpg\n lead.jpg\tz.jpg\n")
    assert {(names[i], names[j]) for i, j in flat(listed(path, names))} == {
        ("#top.jpg", "z.jpg"),
        (" lead.jpg", "z.jpg"),
    }


def test_list_of_ambiguous_spaces_asks_for_a_tab(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("a b c")
    with pytest.raises(PairsError, match="put a TAB"):
        list(listed(path, ["a", "a b", "b c", "c"]))


def test_auto_chooses_by_count_and_names() -> None:
    assert choose([f"{i}.jpg" for i in range(50)])[0] == "exhaustive"
    assert choose([f"frame{i:05d}.jpg" for i in range(500)])[0] == "sequential"
    rng = np.random.default_rng(0)
    strategy, reason = choose([f"{rng.integers(10**9)}.jpg" for _ in range(500)])
    assert strategy == "exhaustive"
    assert "no order" in reason
    with pytest.raises(PairsError, match="choose `sequential` or `list`, or `exhaustive` if you mean it"):
        choose([f"{rng.integers(10**9)}.jpg" for _ in range(4000)])


def test_consecutive_share_of_nothing_is_zero() -> None:
    assert consecutive_share(["a.jpg"]) == 0
