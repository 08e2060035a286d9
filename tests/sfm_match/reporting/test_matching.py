"""Pairs, components, bridges and what is drawn of them, against the job's own results."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from jobs import NAMES, accepted_database

import sfm_match
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS
from sfm_match.errors import SfmMatchError
from sfm_match.images.files import Header
from sfm_match.reporting import matching
from sfm_match.reporting.matching import read_drawn, read_matching
from sfm_match.reporting.packing import FULL, packed, quantised, spread
from sfm_match.store.columns import Names


def database(path: Path, accepted: list[tuple[int, int]]) -> Path:
    """As `accepted_database`, with a table of keypoints."""
    accepted_database(path, accepted)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE keypoints (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB)")
        connection.executemany("INSERT INTO keypoints VALUES (?, 7, 2, NULL)", [(i + 1,) for i in range(len(NAMES))])
    return path


def test_components_and_bridges(tmp_path: Path) -> None:
    """Two triangles that one pair connects, a component of two, two images alone."""
    found = read_matching(
        database(tmp_path / "db", [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5), (6, 7)]), Names(NAMES)
    )
    assert found.sizes == [6, 2]
    assert found.component.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 3]
    assert [(one.pair, one.inliers, one.behind) for one in found.bridges] == [((2, 3), 100, 3), ((6, 7), 100, 1)]
    assert found.partners.tolist() == [2, 2, 3, 3, 2, 2, 1, 1, 0, 0]
    assert set(found.keypoints.tolist()) == {7}


def test_images_that_are_not_in_the_collection_are_passed_over(tmp_path: Path) -> None:
    found = read_matching(database(tmp_path / "db", [(0, 1), (1, 2)]), Names(NAMES[:2]))
    assert found.accepted.tolist() == [[0, 1, 100]]


def test_verdicts_and_pairs_are_those_of_the_job(finished: Path) -> None:
    results = sfm_match.open(finished)
    names = Names(sorted(results.images))
    found = read_matching(finished / "database.db", names)
    pairs = {(names[i], names[j]): inliers for i, j, inliers in found.accepted.tolist()}
    assert pairs == {pair: len(results.verified(*pair)) for pair in results.verified_pairs}
    assert sum(found.verdicts.values()) == 15
    assert len(found.accepted) + len(found.rejected) == 15
    assert found.tried.tolist() == [5] * 6
    assert (np.diff(found.accepted[:, 2]) <= 0).all()


def test_of_very_many_pairs_some_are_listed_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5), (6, 7)]
    path = database(tmp_path / "db", pairs)
    with sqlite3.connect(path) as connection:
        for number, (a, b) in enumerate(pairs):
            pair_id = (a + 1) * MOST_IMAGES + b + 1
            connection.execute("UPDATE two_view_geometries SET rows = ? WHERE pair_id = ?", (50 + number % 5, pair_id))
    whole = read_matching(path, Names(NAMES))
    monkeypatch.setattr(matching, "MOST_PAIRS", 3)
    monkeypatch.setattr(matching, "_READ", 2)
    found = read_matching(path, Names(NAMES))
    assert found.accepted.tolist() == whole.accepted[:3].tolist() == [[3, 4, 54], [2, 3, 53], [0, 2, 52]]
    assert found.partners.tolist() == whole.partners.tolist() == found.tried.tolist() == [2, 2, 3, 3, 2, 2, 1, 1, 0, 0]
    assert found.component.tolist() == whole.component.tolist()
    assert found.bridges == whole.bridges
    assert [one.pair for one in found.bridges] == [(2, 3), (6, 7)]


def test_rejected_pairs_are_counted_where_they_are_too_many_to_list(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(sorted(sfm_match.open(workspace).images))
    with sqlite3.connect(workspace / "database.db") as connection:
        few = f"SELECT pair_id FROM {PAIRS} LIMIT 4"
        connection.execute(f"UPDATE {PAIRS} SET verdict = 'few matches' WHERE pair_id IN ({few})")
    monkeypatch.setattr(matching, "_READ", 2)
    whole = read_matching(workspace / "database.db", names)
    assert len(whole.rejected) >= 4
    monkeypatch.setattr(matching, "REJECTED", 3)
    found = read_matching(workspace / "database.db", names)
    assert found.rejected.tolist() == []
    assert found.verdicts == whole.verdicts
    assert found.tried.tolist() == whole.tried.tolist()


def test_what_is_drawn_lies_on_the_keypoints(finished: Path) -> None:
    results = sfm_match.open(finished)
    names = Names(sorted(results.images))
    found = read_matching(finished / "database.db", names)
    drawn = read_drawn(finished / "database.db", names, results.images, found.accepted)
    size = np.array([960, 720])
    for here, name in enumerate(names):
        mine = drawn.keypoints[drawn.starts[here] : drawn.starts[here + 1]] / FULL * size
        np.testing.assert_allclose(mine, results.adjusted_keypoints(name), atol=0.01)
    for row, (i, j, inliers) in enumerate(found.accepted.tolist()):
        mine = drawn.matches[drawn.match_starts[row] : drawn.match_starts[row + 1]] / FULL
        assert len(mine) == min(inliers, 400)
        indices = results.verified(names[i], names[j])[spread(inliers, 400)]
        ends = [results.adjusted_keypoints(names[k])[indices[:, side]] for side, k in enumerate((i, j))]
        np.testing.assert_allclose(mine * np.tile(size, 2), np.hstack(ends), atol=0.01)


def test_drawn_matches_of_images_whose_numbers_are_not_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "db"
    images = {1: "d.jpg", 2: "b.jpg", 3: "elsewhere.jpg", 4: "a.jpg", 5: "c.jpg"}
    names = Names(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    points = {image: rng.uniform(0, 100, (30, 2)).astype(np.float32) for image in images}
    pairs = {(1, 2): 9, (1, 4): 12, (2, 3): 20, (2, 5): 15, (4, 5): 8}
    rows = {pair: rng.integers(0, 30, (count, 2)).astype(np.uint32) for pair, count in pairs.items()}
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE keypoints (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB)")
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows INTEGER, data BLOB)")
        connection.executemany("INSERT INTO images VALUES (?, ?)", images.items())
        found = [(image, 30, 2, one.tobytes()) for image, one in points.items()]
        connection.executemany("INSERT INTO keypoints VALUES (?, ?, ?, ?)", found)
        matched = [(a * MOST_IMAGES + b, len(one), one.tobytes()) for (a, b), one in rows.items()]
        connection.executemany("INSERT INTO two_view_geometries VALUES (?, ?, ?)", matched)
    accepted = read_matching(path, names).accepted
    assert accepted.tolist() == [[1, 2, 15], [0, 3, 12], [1, 3, 9], [0, 2, 8]]
    monkeypatch.setattr(matching, "MATCHES", 24)  # 8 of each of three pairs
    drawn = read_drawn(path, names, {name: Header(100, 100) for name in names}, accepted)
    assert drawn.match_starts.tolist() == [0, 8, 16, 24, 24]
    number = {name: image for image, name in images.items()}
    for start, (i, j, count) in zip((0, 8, 16), accepted[:3].tolist(), strict=True):
        a, b = number[names[i]], number[names[j]]
        one = rows[a, b] if a < b else rows[b, a][:, ::-1]
        one = one[spread(count, 8)]
        expected = np.hstack((points[a][one[:, 0]], points[b][one[:, 1]]))
        np.testing.assert_allclose(drawn.matches[start : start + 8] / FULL * 100, expected, atol=0.01)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM two_view_geometries WHERE rows = 9")
    with pytest.raises(SfmMatchError, match="changed while it was read"):
        read_drawn(path, names, {}, accepted)


def test_keypoints_are_upright(finished: Path) -> None:
    """Of an image that its EXIF turns by a quarter, the left edge is what was the bottom of the file."""
    names = Names(sorted(sfm_match.open(finished).images))
    turned = {name: Header(960, 720, orientation=6) for name in names}
    accepted = np.empty((0, 3), np.int64)
    plain = read_drawn(finished / "database.db", names, {name: Header(960, 720) for name in names}, accepted).keypoints
    upright = read_drawn(finished / "database.db", names, turned, accepted).keypoints
    np.testing.assert_allclose(upright[:, 0], FULL - plain[:, 1].astype(int), atol=2)
    np.testing.assert_allclose(upright[:, 1], plain[:, 0], atol=2)


def test_packing() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]], ">f4")
    assert np.frombuffer(packed(values), "<f4").tolist() == [1, 2, 3, 4]
    points = np.array([[0.0, 5.0], [1.0, 5.0], [9.0, 5.0]])
    assert quantised(points, np.array([0.0, 5.0]), np.array([2.0, 5.0])).tolist() == [[0, 0], [32768, 0], [FULL, 0]]
    assert spread(5, 2).tolist() == [0, 4]
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(0, 10).tolist() == []


@pytest.mark.parametrize("count", [0, 1])
def test_no_pairs(tmp_path: Path, count: int) -> None:
    found = read_matching(database(tmp_path / "db", []), Names(NAMES[:count]))
    assert (found.sizes, found.bridges, len(found.accepted)) == ([], [], 0)
