"""Keypoints of a rendered scene: after the adjustment, they lie nearer to the true epipolar lines."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from epipolar import epipolar_distance
from jobs import sfm_match as command

import sfm_match
from sfm_match.colmap import adjustment
from sfm_match.colmap.reading import MOST_IMAGES
from sfm_match.errors import NothingDone

OPTIONS = {"size": 512, "max_keypoints": 1024, "pairs": "exhaustive", "mapper": "none"}


@pytest.fixture(scope="module")
def plain(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with its own copy of the images, not adjusted."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(rendered, folder / "images")
    sfm_match.run(folder / "images", folder / "work", adjust_keypoints=False, **OPTIONS)
    return folder


def missed(database: Path) -> np.ndarray:
    """Pixels of all verified matches from the lines of the true cameras."""
    distances = []
    with closing(sqlite3.connect(database)) as connection:
        views = {image: int(name[4:6]) for image, name in connection.execute("SELECT image_id, name FROM images")}
        keypoints = {
            image: np.frombuffer(data, np.float32).reshape(-1, 2)
            for image, data in connection.execute("SELECT image_id, data FROM keypoints")
        }
        for pair, data in connection.execute("SELECT pair_id, data FROM two_view_geometries WHERE rows >= 15"):
            a, b = divmod(pair, MOST_IMAGES)
            rows = np.frombuffer(data, np.uint32).reshape(-1, 2)
            distances.append(epipolar_distance(keypoints[a][rows[:, 0]], keypoints[b][rows[:, 1]], views[a], views[b]))
    return np.concatenate(distances)


def test_matches_come_to_lie_on_their_lines(plain: Path) -> None:
    work = plain / "work"
    before = missed(work / "database.db")
    report = sfm_match.import_(work, overwrite=True)
    after = missed(work / "database.db")
    assert np.median(after) < 0.6 * np.median(before)
    assert report.facts["adjusted"]["keypoints"] > 1000
    assert "keypoints moved by" in report.detail
    assert report.detail == sfm_match.import_(work).detail  # nothing to do, and it says the same
    assert not (work / "aligned").exists()


def test_without(plain: Path) -> None:
    """What was stored is imported; and a record from before the option goes on with it."""
    work = plain / "work"
    sfm_match.import_(work, adjust_keypoints=False, overwrite=True)
    report = sfm_match.import_(work, adjust_keypoints=False)
    assert "adjusted" not in report.facts
    assert "adjust_keypoints" not in (work / "sfm-match.json").read_text()


def test_images_that_are_gone(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    work, images = tmp_path / "work", tmp_path / "images"
    record = work / "images.json"
    record.write_text(record.read_text().replace(str(plain), str(tmp_path)))
    (images / "view05.jpg").unlink()
    report = sfm_match.import_(work, overwrite=True)
    assert report.facts["adjusted"]["unreadable"] == 1
    assert "1 image could not be read again" in report.detail
    shutil.rmtree(images)
    with pytest.raises(NothingDone, match="the images are gone"):
        sfm_match.import_(work, camera_mode="single", overwrite=True)
    sfm_match.import_(work, camera_mode="single", adjust_keypoints=False, overwrite=True)


def test_the_best_pairs_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adjustment, "UNIT", 2)
    monkeypatch.setattr(adjustment, "PARTNERS", 1)
    rows = {(1, 2): 50, (1, 3): 40, (2, 3): 30, (3, 4): 20, (2, 4): 10, (5, 6): 14}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER, rows INTEGER)")
        values = [(a * MOST_IMAGES + b, count) for (a, b), count in rows.items()]
        connection.executemany("INSERT INTO two_view_geometries VALUES (?, ?)", values)
        units = [unit.tolist() for unit in adjustment.units_of(connection)]
    assert units == [[[1, 2], [1, 3]], [[3, 4]]]


def test_on_the_command_line(plain: Path) -> None:
    result = command("import", "--workspace", plain / "work", "--overwrite", "--no-adjust-keypoints")
    assert result.returncode == 0, result.stderr
    assert "keypoints moved" not in result.stdout
