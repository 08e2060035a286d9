"""Keypoints of a rendered scene: after the adjustment, they lie nearer to the true epipolar lines."""

import shutil
import sqlite3
from contextlib import closing
from operator import length_hint
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from epipolar import epipolar_distance
from hypothesis import given
from hypothesis import strategies as st
from jobs import copied_job
from jobs import sfm_match as command
from processes import no_more_files

import sfm_match
from sfm_match.colmap.queries import MOST_IMAGES, DamagedDatabase, write_records
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.loader import decode_for
from sfm_match.job import executor
from sfm_match.job.progress import Progress
from sfm_match.options.job_file import read_job
from sfm_match.refine import align_units
from sfm_match.refine import keypoints as adjustment
from sfm_match.stages import base
from sfm_match.stages import import_ as database

align = align_units._align
OPTIONS: dict[str, Any] = {"size": 512, "max_keypoints": 1024, "pairs": "exhaustive", "mapper": "none"}


@pytest.fixture(scope="module")
def made(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with its own copy of the images, not adjusted."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(rendered, folder / "images")
    sfm_match.run(folder / "images", folder / "work", adjust_keypoints=False, **OPTIONS)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A workspace of a test's own, its images beside it."""
    return copied_job(made, tmp_path)


def keypoints(database: Path) -> dict[int, np.ndarray]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT image_id, data FROM keypoints").fetchall()
    return {image: np.frombuffer(data, np.float32).reshape(-1, 2) for image, data in rows}


def missed(database: Path) -> np.ndarray:
    """Pixels of all verified matches from the lines of the true cameras."""
    points, distances = keypoints(database), []
    with closing(sqlite3.connect(database)) as connection:
        views = {image: int(name[4:6]) for image, name in connection.execute("SELECT image_id, name FROM images")}
        for pair, data in connection.execute("SELECT pair_id, data FROM two_view_geometries WHERE rows >= 15"):
            a, b = divmod(pair, MOST_IMAGES)
            rows = np.frombuffer(data, np.uint32).reshape(-1, 2)
            distances.append(epipolar_distance(points[a][rows[:, 0]], points[b][rows[:, 1]], views[a], views[b]))
    return np.concatenate(distances)


def test_matches_come_to_lie_on_their_lines(work: Path) -> None:
    before = missed(work / "database.db")
    report = sfm_match.import_(work, overwrite=True)
    after = missed(work / "database.db")
    assert np.median(after) < 0.6 * np.median(before)
    assert report.facts["adjusted"]["keypoints"] > 1000
    assert "keypoints moved by" in report.detail
    assert report.detail == sfm_match.import_(work).detail  # nothing to do, and it says the same
    assert not (work / "database.aligned").exists()


def test_without(work: Path) -> None:
    report = sfm_match.import_(work, adjust_keypoints=False)
    assert report.done == 0
    assert "adjusted" not in report.facts
    with pytest.raises(UsageError, match="--adjust-keypoints was off, now on"):
        sfm_match.import_(work)


def test_what_is_not_verified_stays(work: Path) -> None:
    before = keypoints(work / "database.db")
    report = sfm_match.import_(work, verify=False, overwrite=True)
    assert "adjusted" not in report.facts
    assert sfm_match.import_(work, verify=False, adjust_keypoints=False).done == 0  # which is the same
    for image, points in keypoints(work / "database.db").items():
        np.testing.assert_array_equal(points, before[image])


def test_nothing_is_verified(work: Path) -> None:
    """Matches too few for any geometry."""
    sfm_match.match(work, match_threshold=0.9999, overwrite=True)
    report = sfm_match.import_(work, overwrite=True)
    assert report.facts["verified"] == 0
    assert report.facts["adjusted"] == {"pairs": 0, "keypoints": 0, "median": 0.0, "unreadable": 0}


def test_images_that_are_gone_or_others(work: Path) -> None:
    images = work.parent / "images"
    (images / "view05.jpg").unlink()
    shutil.copyfile(images / "view06.jpg", images / "view05.jpg")
    cv2.imwrite(str(images / "view05.jpg"), np.zeros((960, 720, 3), np.uint8))  # as if turned since
    report = sfm_match.import_(work, overwrite=True)
    assert report.facts["adjusted"]["unreadable"] == 1
    assert "1 image could not be read again" in report.detail
    assert report.told[-1] in report.detail
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(NothingDone, match="not one photograph can be read again"):
        sfm_match.import_(work, camera_mode="single", overwrite=True)
    images.rmdir()
    with pytest.raises(NothingDone, match="the images are gone"):
        sfm_match.import_(work, camera_mode="per-image", overwrite=True)
    sfm_match.import_(work, camera_mode="per-image", adjust_keypoints=False, overwrite=True)


def test_a_process_that_may_open_no_more_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs count as unreadable where they are, not where this process cannot open them."""

    def refused(*arguments: Any, **options: Any) -> np.ndarray:
        with no_more_files():
            return decode_for(*arguments, **options)

    monkeypatch.setattr(align_units, "decode_for", refused)
    with pytest.raises(OSError, match="Too many open files"):
        sfm_match.import_(work, overwrite=True)
    monkeypatch.undo()
    assert sfm_match.import_(work, overwrite=True).facts["adjusted"]["unreadable"] == 0


def test_files_on_the_way(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed job left is used where it is of the same pairs and photographs, and only ours is removed."""
    sfm_match.import_(work, overwrite=True)
    expected = keypoints(work / "database.db")
    (work / "database.db").unlink()
    monkeypatch.setattr(database, "clear", lambda _: None)
    sfm_match.import_(work)
    left = work / "database.aligned"
    files = sorted(path.name for path in left.iterdir())
    assert files == ["00000.h5", "00001.h5"]
    (left / "00001.h5").write_bytes(b"damaged")
    (work / "database.db").unlink()
    aligned: list[int] = []

    def counted(pairs: Any, seen: Any) -> Any:
        aligned.append(len(pairs))
        return align(pairs, seen)

    monkeypatch.setattr(align_units, "_align", counted)
    sfm_match.import_(work)
    assert aligned == [7]  # of 15; the others stood
    aligned.clear()
    (work / "database.db").unlink()
    monkeypatch.setattr(adjustment, "UNIT", 4)
    sfm_match.import_(work)
    assert aligned == [4, 4, 4, 3]  # other pairs under the old names
    for image, points in keypoints(work / "database.db").items():
        np.testing.assert_array_equal(points, expected[image])
    (left / "mine.txt").write_text("not ours")
    adjustment.clear(left)
    assert [path.name for path in left.iterdir()] == ["mine.txt"]


def test_the_work_that_is_told_is_all_of_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more matches, the more; of units that an earlier run has done, too."""
    shown: list[Progress] = []

    class Kept(Progress):
        def __init__(self, *args: Any, **others: Any) -> None:
            super().__init__(*args, **others)
            shown.append(self)

    monkeypatch.setattr(base, "Progress", Kept)
    monkeypatch.setattr(database, "clear", lambda _: None)
    for _ in range(2):
        sfm_match.import_(work, overwrite=not shown)
        (work / "database.db").unlink()
    assert [one._stage for one in shown] == ["verify", "adjust"] * 2
    for one in shown:
        assert one._done == one._total
        assert one._worked == pytest.approx(one._work)
        assert one._work > 2 * one._total


def test_the_best_pairs_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adjustment, "PARTNERS", 1)
    rows = {(1, 2): 50, (1, 3): 40, (2, 3): 30, (3, 4): 20, (2, 4): 10, (5, 6): 14}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER, rows INTEGER)")
        values = [(a * MOST_IMAGES + b, count) for (a, b), count in rows.items()]
        connection.executemany("INSERT INTO two_view_geometries VALUES (?, ?)", values)
        pairs = adjustment.pairs_to_align(connection)
    assert pairs.tolist() == [[1, 2, 50], [1, 3, 40], [3, 4, 20]]


@pytest.mark.parametrize(("at_once", "read"), [(3, 1 << 17), (1 << 13, 3), (1 << 13, 1 << 17)])
def test_the_best_pairs_are_the_same_however_many_are_looked_at_at_once(
    at_once: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjustment, "_AT_ONCE", at_once)
    monkeypatch.setattr(adjustment, "_READ", read)
    monkeypatch.setattr(adjustment, "PARTNERS", 2)
    pairs = np.array([(a, b) for a in range(1, 12) for b in range(a + 1, 12)], np.int64)
    matches = np.random.default_rng(3).integers(15, 20, len(pairs))  # many are as good as others

    def rank(image: int, pair: int) -> tuple[int, bool, int]:
        return -int(matches[pair]), pairs[pair, 0] != image, pair

    best = {
        pair
        for image in range(1, 12)
        for pair in sorted(np.flatnonzero((pairs == image).any(axis=1)).tolist(), key=lambda p: rank(image, p))[:2]
    }
    numbers = pairs @ (MOST_IMAGES, 1)
    found = adjustment._best(zip(numbers.tolist(), matches.tolist(), strict=True))
    np.testing.assert_array_equal(found, [numbers[sorted(best)], matches[sorted(best)]])


@pytest.mark.parametrize(("pairs", "units"), [(0, []), (17, [8, 8, 1]), (198, [39, 39, 39, 39, 39, 3])])
def test_files_hold_more_pairs_where_there_are_very_many(
    pairs: int, units: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjustment, "_FILES", 5)
    numbers = np.arange(3 * pairs, dtype=np.int32).reshape(-1, 3)
    made = adjustment._Units(numbers, tmp_path, "digest")
    held = [one.pairs for one in made]
    assert len(made) == len(units)
    assert [len(one) for one in held] == units
    np.testing.assert_array_equal(np.concatenate([numbers[:0, :2], *held]), numbers[:, :2])


def test_no_more_workers_are_asked_for_than_units_are_open(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def noted(devices: Any, do: Any, units: Any, *others: Any) -> Any:
        counted.append(length_hint(units, -1))
        return executor.done_units(devices, do, units, *others)

    monkeypatch.setattr(adjustment, "done_units", noted)
    sfm_match.import_(work, overwrite=True)
    assert counted == [2]  # 15 pairs


@given(st.lists(st.integers(0, 9), max_size=30))
def test_the_median_of_counted_numbers(numbers: list[int]) -> None:
    assert adjustment._median(np.bincount(numbers, minlength=1)) == (np.median(numbers) if numbers else 0)


def test_on_the_command_line(work: Path, tmp_path: Path) -> None:
    result = command("import", "--workspace", work, "--overwrite", "--no-adjust-keypoints")
    assert result.returncode == 0, result.stderr
    assert "keypoints moved" not in result.stdout
    job = tmp_path / "job.yaml"
    job.write_text("images: images\nadjust-keypoints: false\n")
    assert read_job(job)["adjust_keypoints"] is False


@pytest.mark.parametrize(
    "note", ['{"paivs": 3, "keypoints": 1, "median": 0.1, "unreadable": 0}', "{", '{"pairs": "x"}']
)
def test_a_note_of_what_was_done_that_is_damaged_is_told(note: str, tmp_path: Path) -> None:
    """A flipped bit in it was an internal error."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        write_records(connection, {"adjusted": note})
    with pytest.raises(DamagedDatabase, match=r"a.db: damaged \(adjusted: "):
        adjustment.adjusted_before(tmp_path / "a.db")
