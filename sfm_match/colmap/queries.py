"""The content of `database.db`, with SQLite alone: pycolmap takes longer to import than this takes."""

import hashlib
import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError, UsageError

T = TypeVar("T")

TABLE = "sfm_match"  # ours, beside COLMAP's; COLMAP reads past it
PAIRS = "sfm_match_pairs"  # ours, too: what was seen of each pair (`verification`)
CONTENT = "content"  # key in it: `content_digest` as import left the database
_OURS = "ours"  # key in it: digest of our own tables, which nobody else has a reason to change
_COLUMNS = {  # table -> all that COLMAP and we read of it
    "rigs": "rig_id, ref_sensor_id, ref_sensor_type",
    "rig_sensors": "rig_id, sensor_id, sensor_type, sensor_from_rig",
    "cameras": "camera_id, model, width, height, params, prior_focal_length",
    "frames": "frame_id, rig_id",
    "frame_data": "frame_id, data_id, sensor_id, sensor_type",
    "images": "image_id, name, camera_id",
    "pose_priors": "pose_prior_id, corr_data_id, corr_sensor_id, corr_sensor_type, position, position_covariance, "
    "gravity, coordinate_system",
    "keypoints": "image_id, rows, cols, data",
    "matches": "pair_id, rows, cols, data",
    "two_view_geometries": "pair_id, rows, cols, data, config, F, E, H, qvec, tvec, camera1, camera2",
}
_OWN = (TABLE, PAIRS, "sfm_match_images")
_LONG = 64  # characters of a digest; those of before were shorter and knew of large tables only how much there is
_BEFORE = {"keypoints": "image_id, rows", "two_view_geometries": "pair_id, rows"}
_PATIENCE = 60  # seconds for those who read a database
MOST_IMAGES = 2147483647  # COLMAP's pair_id = this * first image_id + second image_id


@dataclass(frozen=True)
class Counts:
    """What a database holds."""

    images: int
    pairs: int  # that were judged, or, where none was, that have a match
    verified: int  # with a two-view geometry: accepted, where pairs are judged

    def numbers(self) -> dict[str, int]:
        return {"images": self.images, "verified": self.verified}


def read_record(path: Path, key: str) -> str | None:
    """A value of our own table, or None where there is no such database, table or key. Raises DatabaseError."""
    if not path.exists():
        return None
    with reading(path) as connection:
        if not _has(connection, TABLE):
            return None
        row = connection.execute(f"SELECT value FROM {TABLE} WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else None


def read_value(path: Path, key: str, kind: type[T]) -> T | None:
    """A value of our own table that is JSON. Raises DatabaseError, also where it is not of that kind."""
    value = read_record(path, key)
    try:
        return None if value is None else msgspec.json.decode(value, type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedDatabase(path, f"{key}: {error}") from error


def write_records(connection: sqlite3.Connection, notes: Mapping[str, str]) -> None:
    """Into our own table; the caller commits."""
    connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?)", notes.items())


def content_digest(path: Path) -> str:
    """Of all that a model or a report depends on: whoever edits something shows, and so does a flipped bit.

    In the form of the one that is on record, so that both can be compared. It reads the whole file, once a process as
    long as the file stays as it is.

    Raises:
        DatabaseError: it is damaged, or in use.
    """
    recorded = read_record(path, CONTENT)
    return _digest(path, file_state(path), len(recorded or "") in (0, _LONG))


def is_edited(path: Path) -> bool:
    """Whether a database is not as `import` left it. Raises DatabaseError where it is damaged, or in use."""
    return content_digest(path) != read_record(path, CONTENT)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes with a file's content, also where that is in the write-ahead log."""
    wal = Path(f"{path}-wal")
    seen = [path.stat(), *([wal.stat()] if wal.exists() else [])]
    return tuple(value for one in seen for value in (one.st_ino, one.st_size, one.st_mtime_ns))


@lru_cache(8)
def _digest(path: Path, _: tuple[int, ...], full: bool) -> str:
    digest = hashlib.sha256()
    with reading(path) as connection:
        if full:
            return _of_tables(connection, (*_COLUMNS, *_OWN))
        for table in _COLUMNS:
            if table != "matches":
                digest.update(table.encode())
                for row in connection.execute(f"SELECT {_BEFORE.get(table, '*')} FROM {table} ORDER BY 1, 2"):
                    digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _of_tables(connection: sqlite3.Connection, tables: Iterable[str]) -> str:
    """Digest of those that are there, but for the digests in them."""
    digest = hashlib.sha256()
    for table in (one for one in tables if one in _COLUMNS or _has(connection, one)):
        digest.update(table.encode())
        where = f"WHERE key NOT IN ('{CONTENT}', '{_OURS}')" if table == TABLE else ""
        for row in connection.execute(f"SELECT {_COLUMNS.get(table, '*')} FROM {table} {where} ORDER BY 1, 2"):
            digest.update(repr([len(one) if isinstance(one, bytes) else one for one in row]).encode())
            for one in row:
                if isinstance(one, bytes):
                    digest.update(one)
    return digest.hexdigest()


def ours_as_sealed(path: Path) -> bool:
    """Whether our own tables are as `seal` left them, or were sealed before it looked at them alone.

    Raises:
        DatabaseError: the database is damaged, or in use.
    """
    sealed = read_record(path, _OURS)
    with reading(path) as connection:
        return sealed is None or sealed == _of_tables(connection, _OWN)


def seal(path: Path) -> None:
    """Ends the writing of a database: all is in the one file, with the digest of its content on record.

    The write-ahead log is switched off: a reader without the right to write would leave files beside the database.
    """
    digest = _digest(path, file_state(path), True)
    with closing(sqlite3.connect(path)) as connection, connection:
        write_records(connection, {CONTENT: digest, _OURS: _of_tables(connection, _OWN)})
    switch_log_off(path)


def switch_log_on(path: Path) -> None:
    """As COLMAP does when it opens a database, where it fails at once if somebody reads it: here that is waited for.

    With the log on, COLMAP opens it beside readers, such as a report or `doctor`.

    Raises:
        sqlite3.Error: it is still read after a minute, or cannot be written.
    """
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        for left in reversed(range(_PATIENCE)):  # a second at a time: Python acts on signals in between
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not left:
                    raise


def switch_log_off(path: Path) -> None:
    """Brings all into the one file; COLMAP switches its write-ahead log on whenever it opens a database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    remove_journals(path)


def empty_log(path: Path) -> None:
    """Brings all that was written into the one file, and leaves the write-ahead log on."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_journals(path: Path) -> None:
    """Of a database that is replaced, or that nobody has open: SQLite would apply them to another one."""
    for journal in journals(path):
        journal.unlink(missing_ok=True)


def journals(path: Path) -> list[Path]:
    """The files that SQLite keeps beside a database, there or not."""
    return [Path(f"{path}{suffix}") for suffix in ("-journal", "-wal", "-shm")]


class DatabaseError(SfmMatchError):
    """A database that cannot be read."""


class DamagedDatabase(DatabaseError):
    """Of what it holds, something cannot be; `reason` says what."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(
            f"{path}: damaged ({self.reason}); run `sfm-match import`, which moves it aside and builds it again"
        )


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write; what SQLite raises becomes a line.

    Raises:
        DatabaseError: it is damaged, in use, or cannot be opened.
    """
    try:
        with closing(open_for_reading(path)) as connection:
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter as sqlite3 quotes a text that is not UTF-8
        raise as_database_error(path, error) from error


def as_database_error(path: Path, error: Exception) -> DatabaseError:
    """What SQLite or COLMAP raised, with the file's name and what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseError(f"{path}: another program is writing to it; close that one and run the same command again")
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DatabaseError(f"{path}: {error} (a full disk?); completed work is kept, the same command resumes")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH):
        return DatabaseError(f"{path}: cannot be opened ({error}); look at the rights to it and to its folder")
    return DamagedDatabase(path, str(error))


def matches_of(data: bytes | None) -> NDArray[np.uint32]:
    """(M, 2) keypoints of the first and the second image, as `matches` and `two_view_geometries` hold them."""
    return np.frombuffer(data or b"", np.uint32).reshape(-1, 2)


def columns(rows: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """(2, R) of a query's numbers, without a Python object for each."""
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64).reshape(-1, 2).T


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def is_ours(path: Path) -> bool:
    """Whether a database has one of our tables. Raises DatabaseError."""
    with reading(path) as connection:
        return any(_has(connection, one) for one in _OWN)


def open_for_reading(path: Path, *, still: bool = False) -> sqlite3.Connection:
    """A connection that cannot write; on read-only media, too, where SQLite cannot make the files that a log needs.

    Args:
        path: of the database.
        still: nobody writes to it, and its log is empty: it is read without locks.

    Raises:
        sqlite3.Error: what a killed process left unfinished cannot be taken back.
    """
    journal, wal, _ = journals(path)
    begun = _holds_something(journal)
    alone = still or not (begun or _holds_something(wal) or os.access(path.parent, os.W_OK))
    if begun and not still:
        _roll_back(path)
    return _opened(path, "ro&immutable=1" if alone else "ro")


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    """A database that is there: no mode makes a new one."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # such as a journal, which its writer removes at any time
        return False


def _roll_back(path: Path) -> None:
    """Takes back what a process wrote that was killed in a transaction, such as COLMAP's when it opens a database.

    SQLite does that at the first read, but not by a connection that cannot write. A journal that is in use stays.
    """
    with closing(_opened(path, "rw")) as connection:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def count(path: Path) -> Counts:
    """Images, and pairs of them, in a database. Raises DatabaseError."""
    with reading(path) as connection:

        def one(query: str) -> int:
            return int(connection.execute(query).fetchone()[0])

        judged = one(f"SELECT COUNT(*) FROM {PAIRS}") if _has(connection, PAIRS) else 0
        return Counts(
            one("SELECT COUNT(*) FROM images"),
            judged or one("SELECT COUNT(*) FROM matches WHERE rows > 0"),
            one("SELECT COUNT(*) FROM two_view_geometries WHERE rows > 0"),
        )


def image_names(path: Path) -> list[str]:
    """Of the images in a database, in order."""
    with reading(path) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM images ORDER BY name")]


def verified_pairs(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(E, 2) places in `names` of the pairs with a two-view geometry; others' images are left out."""
    return verified_inliers(path, names)[:, :2]


def verified_inliers(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(E, 3) as `verified_pairs`, and the inliers of each pair."""
    index = {name: i for i, name in enumerate(names)}
    with reading(path) as connection:
        images = connection.execute("SELECT image_id, name FROM images").fetchall()
        rows = connection.execute("SELECT pair_id, rows FROM two_view_geometries WHERE rows > 0").fetchall()
    place = np.full(max((image for image, _ in images), default=0) + 1, -1, np.int64)
    for image, name in images:
        place[image] = index.get(name, -1)
    numbers, inliers = np.array(rows, np.int64).reshape(-1, 2).T
    pairs = place[np.stack(np.divmod(numbers, MOST_IMAGES), axis=1)]
    return np.asarray(np.column_stack((pairs, inliers))[(pairs >= 0).all(axis=1)], np.int64)


def frames(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(E, 2) places in `names` of images that a rig took at one time: as many pairs as connect each frame."""
    index = {name: i for i, name in enumerate(names)}
    query = "SELECT frame_id, name FROM frame_data JOIN images ON data_id = image_id ORDER BY frame_id, image_id"
    with reading(path) as connection:
        rows = [(frame, index[name]) for frame, name in connection.execute(query) if name in index]
    pairs = [(a, b) for (frame, a), (other, b) in itertools.pairwise(rows) if frame == other]
    return np.array(pairs, np.int64).reshape(-1, 2)


def keypoints(path: Path, name: str) -> NDArray[np.float32]:
    """(N, 2) x, y of an image, raw pixels, the centre of the top-left one at (0.5, 0.5).

    Raises:
        UsageError: the image is not in the database.
    """
    with reading(path) as connection:
        query = "SELECT data, cols FROM keypoints WHERE image_id = ?"
        row = connection.execute(query, (_image_id(connection, path, name),)).fetchone()
    data, columns = row or (b"", 2)
    return np.frombuffer(data, np.float32).reshape(-1, columns)[:, :2]


def inliers(path: Path, first: str, second: str) -> NDArray[np.uint32]:
    """(M, 2) keypoints of both images of a pair: the inliers of its two-view geometry; none without one.

    Raises:
        UsageError: an image is not in the database.
    """
    with reading(path) as connection:
        a, b = (_image_id(connection, path, name) for name in (first, second))
        query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
        row = connection.execute(query, (min(a, b) * MOST_IMAGES + max(a, b),)).fetchone()
    found = matches_of(row and row[0])
    return found if a < b else found[:, ::-1]


def verdict(path: Path, first: str, second: str) -> str | None:
    """Why a pair is accepted or not (`matching.acceptance.Verdict`); None where it was not judged.

    Raises:
        UsageError: an image is not in the database.
    """
    with reading(path) as connection:
        a, b = sorted(_image_id(connection, path, name) for name in (first, second))
        if not _has(connection, PAIRS):
            return None
        query = f"SELECT verdict FROM {PAIRS} WHERE pair_id = ?"
        row = connection.execute(query, (a * MOST_IMAGES + b,)).fetchone()
    return str(row[0]) if row and row[0] else None


def _image_id(connection: sqlite3.Connection, path: Path, name: str) -> int:
    row = connection.execute("SELECT image_id FROM images WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise UsageError(f"{path}: no image {name} in it")
    return int(row[0])
