"""Copies of a database with some of its accepted pairs: COLMAP's mappers read all of one, whatever they map of it."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.components import Component
from sfm_match.colmap.queries import MOST_IMAGES, matches_of

Rows = NDArray[np.int64]
# COLMAP's tables: ours grow with all pairs, and what else is in a database is nothing to a mapper
_SMALL = ("rigs", "rig_sensors", "cameras", "frames", "frame_data", "images", "pose_priors")
_LARGE = ("keypoints", "descriptors", "matches", "two_view_geometries")  # not copied whole
_FEW = 0.1  # of all accepted pairs, up to which a copy takes less than reading all twice does
_CAMERA = 0  # COLMAP's SensorType
_FRAMES = f"SELECT frame_id FROM frame_data WHERE sensor_type = {_CAMERA} AND data_id IN chosen"
_RIGS = f"SELECT rig_id FROM frames WHERE frame_id IN ({_FRAMES})"
_OF_CHOSEN = {  # what belongs to the images of the table `chosen`
    "rigs": f"rig_id IN ({_RIGS})",
    "rig_sensors": f"rig_id IN ({_RIGS})",
    "cameras": "camera_id IN (SELECT camera_id FROM images WHERE image_id IN chosen "
    f"UNION SELECT ref_sensor_id FROM rigs WHERE ref_sensor_type = {_CAMERA} AND rig_id IN ({_RIGS}) "
    f"UNION SELECT sensor_id FROM rig_sensors WHERE sensor_type = {_CAMERA} AND rig_id IN ({_RIGS}))",
    "frames": f"frame_id IN ({_FRAMES})",
    "frame_data": f"frame_id IN ({_FRAMES})",
    "images": "image_id IN chosen",
    "pose_priors": f"corr_sensor_type = {_CAMERA} AND corr_data_id IN chosen",
}


@dataclass(frozen=True)
class Source:
    """Accepted pairs of a database."""

    connection: sqlite3.Connection
    pairs: Rows  # (P, 2) images, the smaller number first
    counts: Rows  # (P,) matches

    @classmethod
    def of(cls, connection: sqlite3.Connection, inliers: Mapping[tuple[str, str], int]) -> "Source":
        """Of pairs of names."""
        ids = _numbers(connection, {name for pair in inliers for name in pair})
        pairs = np.array([sorted((ids[a], ids[b])) for a, b in inliers], np.int64).reshape(-1, 2)
        return cls(connection, pairs, np.array(list(inliers.values()), np.int64))

    def strongest_first(self) -> tuple["Source", Rows]:
        """The same pairs, those with most matches first, and (P,) which one each of them was."""
        order = np.argsort(-self.counts, kind="stable")
        return Source(self.connection, self.pairs[order], self.counts[order]), order

    def rows(self, columns: str) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """Image, image and some columns of each pair."""
        for a, b in self.pairs.tolist():
            yield a, b, self.row(a, b, columns)

    def row(self, a: int, b: int, columns: str) -> tuple[Any, ...]:
        """Some columns of a pair."""
        query = f"SELECT {columns} FROM two_view_geometries WHERE pair_id = ?"
        found: tuple[Any, ...] = self.connection.execute(query, (a * MOST_IMAGES + b,)).fetchone()
        return found

    def each(self) -> Iterator[tuple[int, int, Rows]]:
        """Image, image and (M, 2) matches of each pair."""
        for a, b, (data,) in self.rows("data"):
            yield a, b, matches_of(data).astype(np.int64)


def points_of(connection: sqlite3.Connection, image: int) -> NDArray[np.float32]:
    """(N, 2) keypoints of an image, pixels."""
    query = "SELECT data, rows, cols FROM keypoints WHERE image_id = ?"
    data, rows, columns = connection.execute(query, (image,)).fetchone()
    return np.frombuffer(data, np.float32).reshape(rows, columns)[:, :2]


def own_database(database: Path, copy: Path, component: Component, pairs: int | None) -> Path:
    """A copy of what a database holds of a component, for the mappers that map this alone.

    Args:
        database: as `import` leaves it.
        copy: path of the new one; no file is there.
        component: with all images of each frame that it has one of.
        pairs: accepted ones of the database; None: some of them are not to be used.

    Returns:
        `copy`, or, where the component has many of the pairs, `database`, and no file.
    """
    if pairs is not None and len(component.inliers) > _FEW * pairs:
        return database
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        numbers = sorted(_numbers(source, component.names).values())
        source.execute("CREATE TEMP TABLE chosen (image_id INTEGER PRIMARY KEY)")
        source.executemany("INSERT INTO chosen VALUES (?)", ((number,) for number in numbers))
        copy_small(source, target, _OF_CHOSEN)
        copy_keypoints(source, target, numbers)
        columns = "pair_id, rows, cols, data, config, F, E, H, qvec, tvec, camera1, camera2"
        insert = f"INSERT INTO two_view_geometries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        target.executemany(insert, (row for _, _, row in Source.of(source, component.inliers).rows(columns)))
        target.commit()
    return copy


def _numbers(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
    """image_id of each name."""
    query = "SELECT image_id FROM images WHERE name = ?"
    return {name: connection.execute(query, (name,)).fetchone()[0] for name in names}


def copy_small(source: sqlite3.Connection, target: sqlite3.Connection, where: Mapping[str, str] | None = None) -> None:
    """COLMAP's schema, and its tables but the large ones; of each the rows that its condition in `where` chooses."""
    (version,) = source.execute("PRAGMA user_version").fetchone()  # COLMAP's own
    target.execute(f"PRAGMA user_version = {int(version)}")
    target.execute("PRAGMA synchronous = OFF")  # it lives as long as the mapper
    made = source.execute(
        "SELECT name, tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL "
        "ORDER BY type <> 'table'"
    ).fetchall()
    for name, table, sql in made:
        if table in (*_SMALL, *_LARGE):
            target.execute(sql)
        if name in _SMALL:
            rows = source.execute(f"SELECT * FROM {name}" + (f" WHERE {where[name]}" if where else ""))
            places = ", ".join("?" * len(rows.description))
            target.executemany(f"INSERT INTO {name} VALUES ({places})", rows)


def copy_keypoints(source: sqlite3.Connection, target: sqlite3.Connection, images: Iterable[int]) -> None:
    """Of some images."""
    columns = "image_id, rows, cols, data"
    query = f"SELECT {columns} FROM keypoints WHERE image_id = ?"
    for image in images:
        row = source.execute(query, (image,)).fetchone()
        if row is not None:
            target.execute(f"INSERT INTO keypoints ({columns}) VALUES (?, ?, ?, ?)", row)
