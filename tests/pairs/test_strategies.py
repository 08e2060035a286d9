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
from pairs.spatial import east_north_up, spatial
from pairs.union import union

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
    few = choose([f"{i}.jpg" for i in range(50)])
    assert (few.strategy, few.options) == ("exhaustive", {})
    ordered = choose([f"frame{i:05d}.jpg" for i in range(500)])
    assert (ordered.strategy, ordered.options) == ("sequential", {"loop_detection": True})
    rng = np.random.default_rng(0)
    chaos = [f"{number}.jpg" for number in rng.permutation(10**6)[:4000]]
    some = choose(chaos[:500])
    assert (some.strategy, some.options["prune"]) == ("exhaustive", True)
    assert "no order" in some.reason
    many = choose(chaos)
    assert (many.strategy, many.options) == ("retrieval", {})
    assert "too many to look at every pair" in many.reason


def test_consecutive_share_of_nothing_is_zero() -> None:
    assert consecutive_share(["a.jpg"]) == 0


@given(
    places=st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30), st.integers(0, 5)), min_size=2, max_size=60),
    unknown=st.sets(st.integers(0, 59)),
    neighbors=st.integers(1, 8),
    distance=st.floats(1, 40),
)
def test_spatial_is_the_nearest_within_reach(
    places: list[tuple[int, int, int]], unknown: set[int], neighbors: int, distance: float
) -> None:
    positions = np.array(places, float)
    positions[[i for i in unknown if i < len(places)]] = np.nan
    known = [i for i in range(len(places)) if i not in unknown]
    if len(known) < 2:
        with pytest.raises(PairsError, match="have a GPS position"):
            flat(spatial(positions, neighbors, distance))
        return
    found = flat(spatial(positions, neighbors, distance))
    assert len(set(found)) == len(found)
    assert all(i < j for i, j in found)
    flown = {(i, j): np.hypot(*(positions[i] - positions[j])[:2]) for i, j in combinations(known, 2)}
    assert set(found) <= {pair for pair, d in flown.items() if d <= distance * 1.001}
    for i in known:  # each has its nearest ones; ties may fall either way
        mine = sorted(d for pair, d in flown.items() if i in pair)[:neighbors]
        least = [d for d in mine if d <= distance * 0.999]
        assert sorted(flown[pair] for pair in found if i in pair)[: len(least)] == pytest.approx(least, abs=1e-3)


def test_spatial_gives_a_pair_once_over_all_blocks() -> None:
    positions = np.random.default_rng(0).uniform(0, 500, (3000, 3))
    found = flat(spatial(positions, 5, 100.0))
    assert len(set(found)) == len(found)
    assert 3000 * 5 / 2 < len(found) < 3000 * 5


def test_heights_count_where_asked() -> None:
    positions = np.array([[0, 0, 0], [1, 0, 90.0], [2, 0, 0]])
    assert flat(spatial(positions, 5, 10.0)) == [(0, 1), (0, 2), (1, 2)]
    assert flat(spatial(positions, 5, 10.0, ignore_z=False)) == [(0, 2)]


def test_metres_are_those_of_colmap() -> None:
    import pycolmap

    degrees = np.array([[48.1, 11.5, 500.0], [48.1009, 11.5013, 520.0], [48.099, 11.498, 490.0]])
    ours = east_north_up(*degrees.T)
    theirs = pycolmap.GPSTransform().ellipsoid_to_ecef(degrees)
    for i, j in combinations(range(3), 2):
        expected = np.linalg.norm(theirs[i] - theirs[j])
        assert np.linalg.norm(ours[i] - ours[j]) == pytest.approx(expected, rel=1e-6)
    assert ours[1][0] > ours[0][0] > ours[2][0]  # east
    assert ours[1][1] > ours[0][1] > ours[2][1]  # north
    assert ours[1][2] - ours[0][2] == pytest.approx(20, abs=0.1)  # up
    lost = east_north_up(np.array([48.1, np.nan, 48.2]), np.array([11.5, 11.5, 11.5]), np.array([np.nan, 5, 500]))
    assert np.isnan(lost[1]).all()
    assert np.isfinite(lost[[0, 2]]).all()


@given(names=NAMES, overlap=st.integers(1, 3))
def test_union_is_each_pair_once(names: list[str], overlap: int) -> None:
    rng = np.random.default_rng(len(names))
    positions = rng.uniform(0, 100, (len(names), 3))
    if len(names) < 2:
        return
    parts = [lambda: sequential(names, overlap), lambda: spatial(positions, 3, 50.0), lambda: sequential(names, 1)]
    found = flat(union(len(names), [part() for part in parts]))
    assert len(set(found)) == len(found)
    assert set(found) == {pair for part in parts for pair in flat(part())}


def test_auto_takes_gps_where_there_is_no_order() -> None:
    ordered = [f"{i:05d}.jpg" for i in range(500)]
    chaos = [f"{i * 7919 % 100_003:06d}.jpg" for i in range(500)]
    assert choose(ordered, 1.0).strategy == "sequential+spatial"
    assert choose(sorted(chaos), 0.95).strategy == "spatial"
    assert choose(ordered, 0.5).strategy == "sequential"
    assert choose(ordered[:100], 1.0).strategy == "exhaustive"
