"""A database is believed, taken as it is with a line, or refused with one: never handed to COLMAP with nonsense."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.database_check import check_database, trouble
from sfm_match.colmap.queries import (
    DamagedDatabase,
    DatabaseError,
    content_digest,
    count,
    image_names,
    is_edited,
    journals,
    read_record,
    read_value,
    seal,
    write_records,
)

NAN = np.full(4, np.nan).tobytes()
FAR = np.full((50, 2), 1e30, np.float32).tobytes()
BEYOND = np.full((50, 2), 10**6, np.uint32).tobytes()
NONSENSE = {
    "keypoints far outside": ("UPDATE keypoints SET rows = 50, cols = 2, data = ?", FAR),
    "keypoints in one place": ("UPDATE keypoints SET data = zeroblob(LENGTH(data)) WHERE image_id = 1",),
    "keypoints of 3 columns": ("UPDATE keypoints SET cols = 3",),
    "too few bytes": ("UPDATE keypoints SET data = ?", b"123"),
    "no bytes": ("UPDATE keypoints SET data = NULL",),
    "bytes that are text": ("UPDATE keypoints SET data = 'points'",),
    "a negative count": ("UPDATE keypoints SET rows = -1",),
    "no keypoints": ("DELETE FROM keypoints WHERE image_id = 1",),
    "matches beyond": ("UPDATE matches SET rows = 50, data = ?", BEYOND),
    "inliers beyond": ("UPDATE two_view_geometries SET rows = 50, data = ?", BEYOND),
    "a short matrix": ("UPDATE two_view_geometries SET F = ?", b"1"),
    "a pose that is no number": ("UPDATE two_view_geometries SET qvec = ?", NAN),
    "an unknown configuration": ("UPDATE two_view_geometries SET config = 99",),
    "a pair of nobody": ("UPDATE matches SET pair_id = pair_id + 2147483647 * 1000",),
    "parameters that are no numbers": ("UPDATE cameras SET params = ?", NAN),
    "too few parameters": ("UPDATE cameras SET params = ?", b"1"),
    "an unknown camera model": ("UPDATE cameras SET model = 999",),
    "a width beyond reason": ("UPDATE cameras SET width = 1000000000000",),
    "an image of no camera": ("UPDATE images SET camera_id = 77",),
    "no images": ("DELETE FROM images",),
    "no frames": ("DELETE FROM frames",),
    "no frame of an image": ("DELETE FROM frame_data WHERE frame_id = 1",),
    "a rig of no camera": ("UPDATE rigs SET ref_sensor_id = 99",),
    "a position of another length": ("INSERT INTO pose_priors VALUES (1, 1, 1, 0, ?, NULL, NULL, 0)", b"1"),
    "no table": ("DROP TABLE keypoints",),
    "another name of a column": ("ALTER TABLE images RENAME COLUMN name TO nome",),
    "an old version": ("PRAGMA user_version = 1",),
    "a record of ours": ("UPDATE sfm_match SET value = 'abd' WHERE key = 'inputs'",),
    "one more record": ("INSERT INTO sfm_match VALUES ('cameras given', '[1]')",),
}
EDITS = {
    "a focal length": ("UPDATE cameras SET prior_focal_length = 1",),
    "a coordinate": ("UPDATE keypoints SET data = CAST(zeroblob(8) || SUBSTR(data, 9) AS BLOB) WHERE image_id = 1",),
    "an inlier": ("UPDATE two_view_geometries SET data = zeroblob(LENGTH(data))",),
    "a match": ("UPDATE matches SET data = zeroblob(LENGTH(data))",),
    "a matrix": ("UPDATE two_view_geometries SET E = NULL",),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a database of one camera and four images."""
    path = tmp_path_factory.mktemp("whole") / "database.db"
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 4, 60
    database = pycolmap.Database.open(str(path))
    pycolmap.synthesize_dataset(options, database)
    database.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        write_records(connection, {"inputs": "abc"})
    seal(path)
    return path.read_bytes()


@pytest.fixture
def database(whole: bytes, tmp_path: Path) -> Path:
    (tmp_path / "database.db").write_bytes(whole)
    return tmp_path / "database.db"


def said(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_what_import_leaves_is_believed(database: Path) -> None:
    assert check_database(database) is False
    assert trouble(database) is None
    assert not [path for path in database.parent.iterdir() if path != database]


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused(database: Path, statement: tuple[str, ...]) -> None:
    said(database, *statement)
    with pytest.raises(DamagedDatabase, match=r"database.db: damaged \(.+\); run `sfm-match import`") as raised:
        check_database(database)
    assert "\n" not in str(raised.value)
    assert str(trouble(database)) == str(raised.value)


@pytest.mark.parametrize("statement", EDITS.values(), ids=EDITS.keys())
def test_an_edit_is_said(database: Path, statement: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    said(database, *statement)
    assert check_database(database) is True
    assert check_database(database) is True
    assert [one.getMessage().partition(": ")[2][:20] for one in caplog.records] == ["changed since import"]


def test_single_bits_are_noticed_or_change_nothing(database: Path, whole: bytes) -> None:
    dice = np.random.default_rng(0)
    rows = dump(database)
    outcomes = {"believed": 0, "edited": 0, "refused": 0}
    for place in dice.integers(0, len(whole), 60):
        content = bytearray(whole)
        content[place] ^= 1 << int(dice.integers(8))
        database.unlink()
        database.write_bytes(content)
        try:
            edited = check_database(database)
        except DatabaseError:
            outcomes["refused"] += 1
            continue
        outcomes["edited" if edited else "believed"] += 1
        assert edited or dump(database) == rows
    assert all(outcomes.values())


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        tables = ("cameras", "images", "keypoints", "matches", "two_view_geometries", "frames", "rigs", "frame_data")
        return [repr(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path: Path) -> None:
    path.write_text("no database\n" * 99)


def _schema(path: Path) -> None:
    """SQLite's line about it quotes what is no UTF-8, and then sqlite3 raises none of its own errors."""
    content = path.read_bytes()
    assert b"frame_data   (" in content
    path.write_bytes(content.replace(b"frame_data   (", b"frame_data   \xa8"))


@pytest.mark.parametrize("broken", [_half, _text, _schema])
def test_what_sqlite_cannot_read_is_damaged(database: Path, broken: Callable[[Path], None]) -> None:
    broken(database)
    with pytest.raises(DamagedDatabase):
        check_database(database)


def test_a_newer_colmap_and_another_program_are_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said(database, "PRAGMA user_version = 99020100")
    with pytest.raises(DatabaseError, match=r"newer COLMAP \(99\.2\.1, this one is 4\.\d+\.\d+\)"):
        check_database(database)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0.01}))
    with closing(connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseError, match="another program is writing to it"):
            count(database)
        with pytest.raises(DatabaseError, match="another program is writing to it"):
            read_record(database, "inputs")


def test_what_a_killed_process_began_is_taken_back(database: Path, tmp_path: Path) -> None:
    names, before, left = image_names(database), content_digest(database), tmp_path / "left.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # pages: the others are written before the transaction ends
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE images SET name = 'changed' || image_id")
        connection.execute("UPDATE keypoints SET data = zeroblob(LENGTH(data))")
        for end in ("", "-journal"):
            shutil.copyfile(f"{database}{end}", f"{left}{end}")
        connection.execute("ROLLBACK")
    assert left.read_bytes() != database.read_bytes()
    assert image_names(left) == names
    assert content_digest(left) == before
    assert trouble(left) is None
    assert not [one for one in journals(left) if one.exists()]


def test_a_transaction_that_goes_on_is_not_taken_back(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, connect = image_names(database), sqlite3.connect
    with closing(connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE images SET name = 'changed' || image_id")
        connection.execute("UPDATE keypoints SET data = zeroblob(LENGTH(data))")
        monkeypatch.setattr(sqlite3, "connect", partial(connect, timeout=0.1))
        with pytest.raises(DatabaseError, match="another program is writing to it"):
            image_names(database)
        connection.execute("COMMIT")
    assert image_names(database) == [f"changed{number}" for number in range(1, len(names) + 1)]


def test_a_journal_alone_makes_no_database(tmp_path: Path) -> None:
    (tmp_path / "gone.db-journal").write_bytes(bytes(600))
    with pytest.raises(DatabaseError, match="cannot be opened"):
        image_names(tmp_path / "gone.db")
    assert not (tmp_path / "gone.db").exists()


def test_a_journal_may_go_meanwhile(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, exists = Path(f"{database}-journal"), Path.exists
    monkeypatch.setattr(Path, "exists", lambda path, **how: path == journal or exists(path, **how))
    assert image_names(database)


def test_a_database_of_before_is_taken_as_it_is(database: Path) -> None:
    """It has no digest of our own tables alone."""
    said(database, "DELETE FROM sfm_match WHERE key = 'ours'")
    assert check_database(database) is False
    said(database, "UPDATE sfm_match SET value = 'abd' WHERE key = 'inputs'")
    assert check_database(database) is True


def test_a_value_of_another_kind_is_damage(database: Path) -> None:
    said(database, "INSERT INTO sfm_match VALUES ('cameras', '{\"!\": [\"single\"]}'), ('cameras given', '[1]')")
    assert read_value(database, "cameras given", list[int]) == [1]
    assert read_value(database, "none", list[int]) is None
    with pytest.raises(DamagedDatabase, match="cameras: "):
        read_value(database, "cameras", dict[int, list[str]])


def test_digests_of_before_are_still_compared(database: Path) -> None:
    """They knew of keypoints and inliers only how many there are."""
    said(database, "UPDATE sfm_match SET value = 'short' WHERE key = 'content'")
    assert is_edited(database)
    before = content_digest(database)
    said(database, "UPDATE sfm_match SET value = ? WHERE key = 'content'", before)
    assert not is_edited(database)
    said(database, "UPDATE cameras SET prior_focal_length = 1")
    assert is_edited(database)
