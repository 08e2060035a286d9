"""The content of `database.db`, with SQLite alone: pycolmap takes longer to import than this takes."""

import hashlib
import itertools
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import UsageError

TABLE = "sfm_match"  # ours, beside COLMAP's; COLMAP reads past it
PAIRS = "sfm_match_pairs"  # ours, too: what was seen of each pair (`verification`)
CONTENT = "content"  # key in it: `content_digest` as import left the database
_DIGESTED = {  # table -> what a model depends on; of what is large, how much there is
    "rigs": "*",
    "rig_sensors": "*",
    "cameras": "*",
    "frames": "*",
    "frame_data": "*",
    "images": "*",
    "pose_priors": "*",
    "keypoints": "image_id, rows",
    "two_view_geometries": "pair_id, rows",
}
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
    """A value of our own table, or None where there is no such database, table or key."""
    if not path.exists():
        return None
    connection = open_for_reading(path)
    try:
        row = connection.execute(f"SELECT value FROM {TABLE} WHERE key = ?", (key,)).fetchone()
    except sqlite3.DatabaseError:
        return None
    finally:
        connection.close()
    return str(row[0]) if row else None


def write_records(connection: sqlite3.Connection, notes: Mapping[str, str]) -> None:
    """Into our own table; the caller commits."""
    connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?)", notes.items())


def content_digest(path: Path) -> str:
    """Of cameras, rigs, frames, images, priors, and the numbers of keypoints and inliers: whoever edits one shows."""
    digest = hashlib.sha256()
    with closing(open_for_reading(path)) as connection:
        for table, columns in _DIGESTED.items():
            digest.update(table.encode())
            for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2"):
                digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def damage(path: Path) -> str | None:
    """What is wrong with a database, in words; None where SQLite finds nothing."""
    try:
        with closing(open_for_reading(path)) as connection:
            (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return None if told == "ok" else " ".join(str(told).split())
    except sqlite3.Error as error:
        return str(error)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def count(path: Path) -> Counts:
    """Images, and pairs of them, in a database."""
    connection = open_for_reading(path)

    def one(query: str) -> int:
        return int(connection.execute(query).fetchone()[0])

    try:
        judged = one(f"SELECT COUNT(*) FROM sqlite_master WHERE name = '{PAIRS}'") and one(
            f"SELECT COUNT(*) FROM {PAIRS}"
        )
        return Counts(
            one("SELECT COUNT(*) FROM images"),
            judged or one("SELECT COUNT(*) FROM matches WHERE rows > 0"),
            one("SELECT COUNT(*) FROM two_view_geometries WHERE rows > 0"),
        )
    finally:
        connection.close()


def image_names(path: Path) -> list[str]:
    """Of the images in a database, in order."""
    with closing(open_for_reading(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM images ORDER BY name")]


def verified_pairs(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(E, 2) places in `names` of the pairs with a two-view geometry; others' images are left out."""
    return verified_inliers(path, names)[:, :2]


def verified_inliers(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(E, 3) as `verified_pairs`, and the inliers of each pair."""
    index = {name: i for i, name in enumerate(names)}
    with closing(open_for_reading(path)) as connection:
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
    with closing(open_for_reading(path)) as connection:
        rows = [(frame, index[name]) for frame, name in connection.execute(query) if name in index]
    pairs = [(a, b) for (frame, a), (other, b) in itertools.pairwise(rows) if frame == other]
    return np.array(pairs, np.int64).reshape(-1, 2)


def keypoints(path: Path, name: str) -> NDArray[np.float32]:
    """(N, 2) x, y of an image, raw pixels, the centre of the top-left one at (0.5, 0.5).

    Raises:
        UsageError: the image is not in the database.
    """
    with closing(open_for_reading(path)) as connection:
        query = "SELECT data, cols FROM keypoints WHERE image_id = ?"
        row = connection.execute(query, (_image_id(connection, path, name),)).fetchone()
    data, columns = row or (b"", 2)
    return np.frombuffer(data, np.float32).reshape(-1, columns)[:, :2]


def inliers(path: Path, first: str, second: str) -> NDArray[np.uint32]:
    """(M, 2) keypoints of both images of a pair: the inliers of its two-view geometry; none without one.

    Raises:
        UsageError: an image is not in the database.
    """
    with closing(open_for_reading(path)) as connection:
        a, b = (_image_id(connection, path, name) for name in (first, second))
        query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
        row = connection.execute(query, (min(a, b) * MOST_IMAGES + max(a, b),)).fetchone()
    found = np.frombuffer((row and row[0]) or b"", np.uint32).reshape(-1, 2)
    return found if a < b else found[:, ::-1]


def verdict(path: Path, first: str, second: str) -> str | None:
    """Why a pair is accepted or not (`matching.acceptance.Verdict`); None where it was not judged.

    Raises:
        UsageError: an image is not in the database.
    """
    with closing(open_for_reading(path)) as connection:
        a, b = sorted(_image_id(connection, path, name) for name in (first, second))
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (PAIRS,)).fetchone():
            return None
        query = f"SELECT verdict FROM {PAIRS} WHERE pair_id = ?"
        row = connection.execute(query, (a * MOST_IMAGES + b,)).fetchone()
    return str(row[0]) if row and row[0] else None


def _image_id(connection: sqlite3.Connection, path: Path, name: str) -> int:
    row = connection.execute("SELECT image_id FROM images WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise UsageError(f"{path}: no image {name} in it")
    return int(row[0])
