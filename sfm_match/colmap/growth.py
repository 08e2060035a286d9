"""What a database that grows takes over from the one before it: everything between images that are as they were.

A pair's verdict and geometry depend on its own matches and cameras alone, so those of unchanged images stay true beside
new ones. Verification sees detected keypoints; once it is done, unchanged images get their adjusted keypoints back, and
only pairs that were not aligned before are left to align.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.queries import (
    MOST_IMAGES,
    PAIRS,
    is_edited,
    open_for_reading,
    read_record,
    write_records,
)
from sfm_match.store.pair_table import PairTable

if TYPE_CHECKING:
    import pycolmap

IMAGES = "sfm_match_images"  # table: the file of each image, by its signature
SETTINGS = "settings"  # record: all that verdicts depend on beside the images
FROM = "grown from"  # record: the inputs of the database that this one grew from, where all of it was taken over
TAKEN = "pairs taken over"  # record: how many
_RESTORED = "keypoints restored"  # record
_COPIED = ("matches", "two_view_geometries", PAIRS)
_UNCHANGED = f"""
SELECT image_id FROM main.{IMAGES} JOIN earlier.{IMAGES} USING (image_id, signature)
JOIN main.images AS i USING (image_id) JOIN earlier.images AS j USING (image_id)
JOIN main.cameras AS c ON c.camera_id = i.camera_id JOIN earlier.cameras AS d ON d.camera_id = j.camera_id
WHERE i.name = j.name AND (c.model, c.width, c.height, c.params) = (d.model, d.width, d.height, d.params)
"""


@dataclass(frozen=True)
class Earlier:
    """The database that another one grows from."""

    path: Path
    inputs: str  # what it was built from


def earlier_of(database: Path, settings: str) -> Earlier | None:
    """A database that can be grown from: whole, of the same settings, and as `import` left it. None: there is none."""
    inputs = read_record(database, "inputs")
    if inputs is None or read_record(database, SETTINGS) != settings:
        return None
    return None if is_edited(database) else Earlier(database, inputs)


def write_signatures(connection: sqlite3.Connection, signatures: Mapping[str, str]) -> None:
    """Name -> signature of its file, of the images that are in the database. The caller commits."""
    connection.execute(f"CREATE TABLE {IMAGES} (image_id INTEGER PRIMARY KEY, signature TEXT NOT NULL)")
    numbers = connection.execute("SELECT image_id, name FROM images")
    connection.executemany(
        f"INSERT INTO {IMAGES} VALUES (?, ?)", ((number, signatures[name]) for number, name in numbers)
    )


def take_over(database: Path, earlier: Earlier, pairs: PairTable, names: Sequence[str]) -> None:
    """Copies matches, geometries and verdicts of the pairs of unchanged images, all or none.

    Args:
        database: with images and keypoints, and no pair.
        earlier: what it grows from.
        pairs: that are wanted, places in `names`.
        names: of the images.
    """
    with _both(database, earlier) as connection:
        number = dict(connection.execute("SELECT name, image_id FROM images"))
        unchanged = {image for (image,) in connection.execute(_UNCHANGED)}
        of = np.array([number.get(name, -1) for name in names], np.int64)
        known = np.isin(of, list(unchanged))
        connection.execute("CREATE TEMP TABLE wanted (pair_id INTEGER PRIMARY KEY)")
        for some in pairs.among(known).in_parts():
            codes = np.sort(of[some], axis=1) @ (MOST_IMAGES, 1)
            connection.executemany("INSERT INTO wanted VALUES (?)", [(code,) for code in codes.tolist()])
        (schema,) = connection.execute("SELECT sql FROM earlier.sqlite_master WHERE name = ?", (PAIRS,)).fetchone()
        connection.execute(schema)
        for table in _COPIED:
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM earlier.{table} JOIN wanted USING (pair_id)")
        (taken,) = connection.execute(f"SELECT COUNT(*) FROM main.{PAIRS}").fetchone()
        (before,) = connection.execute(f"SELECT COUNT(*) FROM earlier.{PAIRS}").fetchone()
        (images,) = connection.execute(f"SELECT COUNT(*) FROM earlier.{IMAGES}").fetchone()
        grown = {FROM: earlier.inputs} if (taken, len(unchanged)) == (before, images) else {}
        write_records(connection, {TAKEN: str(taken), **grown})


def restore_keypoints(database: Path, earlier: Earlier) -> NDArray[np.int64]:
    """Gives unchanged images the keypoints that adjustment moved before, all or none.

    Args:
        database: whose pairs are verified.
        earlier: what it grows from.

    Returns:
        (P,) pair_ids of the accepted pairs that were taken over.
    """
    with _both(database, earlier) as connection:
        unchanged = [image for (image,) in connection.execute(_UNCHANGED)]
        if read_record(database, _RESTORED) is None:
            of_image = "(SELECT data FROM earlier.keypoints WHERE image_id = ?1)"
            query = f"UPDATE main.keypoints SET data = {of_image} WHERE image_id = ?1"
            connection.executemany(query, [(image,) for image in unchanged])
            write_records(connection, {_RESTORED: "yes"})
        query = "SELECT pair_id FROM main.two_view_geometries JOIN earlier.two_view_geometries USING (pair_id)"
        pairs = np.array(connection.execute(query).fetchall(), np.int64).reshape(-1)
    ends = np.stack(np.divmod(pairs, MOST_IMAGES), axis=1)
    return np.asarray(pairs[np.isin(ends, unchanged).all(axis=1)], np.int64)


def brought_up_to(model: "pycolmap.Reconstruction", database: Path) -> "pycolmap.Reconstruction | None":
    """A model of the earlier database as a start for the one that grew from it: keypoints are where that has them.

    Args:
        model: it is changed.
        database: the one that grew.

    Returns:
        The model, or None where one of its images is not in the database as it was.
    """
    with closing(open_for_reading(database)) as connection:
        for image in model.images.values():
            query = "SELECT name, data, cols FROM images JOIN keypoints USING (image_id) WHERE image_id = ?"
            row = connection.execute(query, (image.image_id,)).fetchone()
            points = np.frombuffer(row[1], np.float32).reshape(-1, row[2])[:, :2] if row is not None else None
            if points is None or row[0] != image.name or len(points) != image.num_points2D():
                return None
            for seen, xy in zip(image.points2D, points.astype(np.float64), strict=True):
                seen.xy = xy
    return model


@contextmanager
def _both(database: Path, earlier: Earlier) -> Iterator[sqlite3.Connection]:
    """A transaction on a database, with the earlier one attached as `earlier`."""
    with closing(sqlite3.connect(database, uri=True)) as connection:
        connection.execute("ATTACH ? AS earlier", (f"{earlier.path.absolute().as_uri()}?mode=ro",))
        with connection:
            yield connection
