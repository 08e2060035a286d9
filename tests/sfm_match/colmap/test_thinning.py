"""The database of few matches with which poses are found."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.queries import MOST_IMAGES, PAIRS
from sfm_match.colmap.thinning import PER_OTHER, PER_PAIR, thinned

IMAGES, KEYPOINTS = 5, 1200
Pairs = dict[tuple[int, int], set[tuple[int, int]]]


def database(path: Path, *, scenes: int = 1, images: int = IMAGES) -> Path:
    """Cameras around points that all of them see, once or more: images 1 ... 5 of the first scene, and so on."""
    pycolmap.set_random_seed(0)
    with pycolmap.Database.open(str(path)) as opened:
        for _ in range(scenes):
            options = pycolmap.SyntheticDatasetOptions()
            options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, images
            options.num_points3D = KEYPOINTS
            options.inlier_match_ratio = 1.0
            pycolmap.synthesize_dataset(options, opened)
    return path


def names_of(path: Path) -> dict[int, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT image_id, name FROM images"))


def pairs_of(path: Path) -> Pairs:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT pair_id, rows, data FROM two_view_geometries WHERE rows > 0").fetchall()
    found = {}
    for number, count, data in rows:
        matches = np.frombuffer(data, np.uint32).reshape(-1, 2)
        assert len(matches) == count
        found[divmod(number, MOST_IMAGES)] = {(int(a), int(b)) for a, b in matches}
    return found


def inliers_of(path: Path, images: Collection[int] | None = None) -> dict[tuple[str, str], int]:
    """Of the pairs between some images, by names; larger numbers first: the order must not matter."""
    names = names_of(path)
    pairs = {pair: len(one) for pair, one in pairs_of(path).items() if images is None or {*pair} <= {*images}}
    return {(names[b], names[a]): count for (a, b), count in pairs.items()}


def weaken(path: Path, pair: tuple[int, int], count: int) -> None:
    """Leaves a pair few matches."""
    with closing(sqlite3.connect(path)) as connection, connection:
        number = pair[0] * MOST_IMAGES + pair[1]
        ((data,),) = connection.execute("SELECT data FROM two_view_geometries WHERE pair_id = ?", (number,))
        few = np.frombuffer(data, np.uint32).reshape(-1, 2)[-count:]
        query = "UPDATE two_view_geometries SET rows = ?, data = ? WHERE pair_id = ?"
        connection.execute(query, (count, few.tobytes(), number))


def test_pairs_keep_as_many_as_the_mapper_needs(tmp_path: Path) -> None:
    path = database(tmp_path / "all.db")
    weaken(path, (1, 4), 40)
    every = pairs_of(path)
    assert min(len(one) for pair, one in every.items() if pair != (1, 4)) > 3 * PER_PAIR
    copy = thinned(path, tmp_path / "few.db", inliers_of(path))
    assert copy == tmp_path / "few.db"
    few = pairs_of(copy)
    assert few.keys() == every.keys()
    for pair, matches in few.items():
        assert matches <= every[pair]
        assert len(matches) >= min(PER_PAIR, len(every[pair]))
    assert few[1, 4] == every[1, 4]  # a weak pair stays whole
    assert sum(map(len, few.values())) < 0.5 * sum(map(len, every.values()))


def test_pairs_that_are_not_the_best_of_an_image_keep_enough_to_place_one(tmp_path: Path) -> None:
    path = database(tmp_path / "all.db", images=14)
    for pair in list(pairs_of(path))[::2]:
        weaken(path, pair, 300)
    copy = thinned(path, tmp_path / "few.db", inliers_of(path))
    assert copy is not None
    every, few = pairs_of(path), pairs_of(copy)
    assert all(len(matches) >= PER_OTHER for matches in few.values())
    for image in names_of(path):
        mine = sorted((-len(every[pair]), pair) for pair in every if image in pair)
        assert all(len(few[pair]) >= PER_PAIR for count, pair in mine[:10] if count < mine[10][0])


def test_tracks_stay_whole(tmp_path: Path) -> None:
    """Keypoints that stay are matched with all that stay of their track."""
    path = database(tmp_path / "all.db")
    copy = thinned(path, tmp_path / "few.db", inliers_of(path))
    assert copy is not None
    every, few = pairs_of(path), pairs_of(copy)
    staying = {(image, match[side]) for pair, one in few.items() for match in one for side, image in enumerate(pair)}
    for (a, b), matches in every.items():
        for i, j in matches - few[a, b]:
            assert (a, i) not in staying or (b, j) not in staying


def test_the_mapper_takes_it(tmp_path: Path) -> None:
    path = database(tmp_path / "all.db")
    copy = thinned(path, tmp_path / "few.db", inliers_of(path))
    (tmp_path / "out").mkdir()
    found = pycolmap.incremental_mapping(str(copy), str(tmp_path), str(tmp_path / "out"))
    assert found[0].num_reg_images() == IMAGES
    assert PER_PAIR / 2 < found[0].num_points3D() < KEYPOINTS / 2


def test_only_images_that_are_asked_for(tmp_path: Path) -> None:
    path = database(tmp_path / "all.db", scenes=2)
    names = names_of(path)
    wanted = [1, 2, 4, 5]
    copy = thinned(path, tmp_path / "few.db", inliers_of(path, wanted))
    assert copy is not None
    assert set(pairs_of(copy)) == {(a, b) for a in wanted for b in wanted if a < b}
    assert names_of(copy) == names  # what is small is there whole
    with closing(sqlite3.connect(copy)) as connection:
        assert [image for (image,) in connection.execute("SELECT image_id FROM keypoints ORDER BY 1")] == wanted


def test_only_what_is_colmaps_is_copied(tmp_path: Path) -> None:
    """The verdicts of all pairs would be there once for each component; another program's tables may be anything."""
    path = database(tmp_path / "all.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        before = connection.execute("SELECT name FROM sqlite_master ORDER BY 1").fetchall()
        connection.execute(f"CREATE TABLE {PAIRS} (pair_id INTEGER PRIMARY KEY, verdict TEXT)")
        connection.execute('CREATE TABLE "my ""own"" notes" (a, b GENERATED ALWAYS AS (a + 1) STORED)')
        connection.execute("CREATE VIEW large AS SELECT * FROM cameras WHERE width > 4000")
        connection.execute("CREATE TRIGGER noted AFTER INSERT ON keypoints BEGIN DELETE FROM images; END")
    copy = thinned(path, tmp_path / "few.db", inliers_of(path))
    assert copy is not None
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master ORDER BY 1").fetchall() == before
    assert names_of(copy) == names_of(path)


@pytest.mark.parametrize("left", [40, PER_PAIR])
def test_where_most_would_stay_there_is_no_copy(left: int, tmp_path: Path) -> None:
    path = database(tmp_path / "all.db")
    for pair in pairs_of(path):
        weaken(path, pair, left)
    assert thinned(path, tmp_path / "few.db", inliers_of(path)) is None
    assert not (tmp_path / "few.db").exists()
