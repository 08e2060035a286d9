"""A database with few matches, with which the poses of images are found in a fraction of the time.

A mapper's time goes into adjustments, and theirs with the observations. Where images are, a few hundred points tell as
well as thousands; the rest is triangulated once the poses are known (`triangulation`), and one adjustment of all points
makes the model as exact as if all had been there from the start.
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs.prune import among_first
from sfm_match.colmap.queries import MOST_IMAGES

# Matches of a pair, at least, where it has as many: of the pairs that are among the best of one of their images, and of
# the others, which may be all that connects two parts: as many as place an image. With 50 of the best, AUC@1 degree of
# entry-P10 at 640 pixels falls from .931 to .923; with 100 that of no scene with truth falls by more than .0006.
PER_PAIR, PER_OTHER = 100, 30
_BEST = 10  # pairs of an image: those with most matches
_WORTH_IT = 0.4  # share of the matches that may be left, at most: with more there is little to gain
_LARGE = ("keypoints", "descriptors", "matches", "two_view_geometries")  # tables that are not copied whole
_Rows = NDArray[np.int64]


def thinned(database: Path, copy: Path, names: Collection[str]) -> Path | None:
    """A copy of a database, of some images, in which each accepted pair keeps matches of well connected keypoints.

    Of each pair, `PER_PAIR` or `PER_OTHER` matches are chosen whose keypoints are matched in most images: they make the
    longest tracks, and those that a pair chooses are mostly chosen by the other pairs of its images, too. A match stays
    where both of its keypoints are in a match that is chosen, so that tracks stay whole. A weak pair stays as it is:
    what was connected is connected.

    Args:
        database: as `import` leaves it.
        copy: path of the new one; no file is there.
        names: of the images; what lies between them is copied, and all that is small.

    Returns:
        `copy`, or None, and no file, where it would keep most of the matches.
    """
    with closing(sqlite3.connect(database)) as connection:
        ids = {image for image, name in connection.execute("SELECT image_id, name FROM images") if name in names}
        chosen = _chosen(connection, ids)
        if chosen is None:
            return None
        with closing(sqlite3.connect(copy)) as target:
            _copy_small(connection, target)
            query = "SELECT image_id, rows, cols, data FROM keypoints"
            rows = (row for row in connection.execute(query) if row[0] in ids)
            target.executemany("INSERT INTO keypoints (image_id, rows, cols, data) VALUES (?, ?, ?, ?)", rows)
            _copy_pairs(connection, target, ids, chosen)
            target.commit()
    return copy


def _chosen(connection: sqlite3.Connection, ids: Collection[int]) -> dict[int, NDArray[np.bool_]] | None:
    """Image -> (N,) which of its keypoints are in a chosen match; None where that is not worth it."""
    counts = {image: rows for image, rows in connection.execute("SELECT image_id, rows FROM keypoints") if image in ids}
    partners = {image: np.zeros(rows, np.int32) for image, rows in counts.items()}
    found: list[tuple[int, int, int]] = []  # image, image and matches of each pair
    for a, b, matches in _pairs(connection, ids):
        found.append((a, b, len(matches)))
        for image, column in ((a, 0), (b, 1)):  # a keypoint is in one match of a pair
            partners[image][matches[:, column]] += 1
    chosen = {image: np.zeros(rows, bool) for image, rows in counts.items()}
    for (a, b, matches), most in zip(_pairs(connection, ids), _quotas(np.array(found, np.int64)), strict=True):
        if len(matches) > most:
            connected = np.minimum(partners[a][matches[:, 0]], partners[b][matches[:, 1]])
            matches = matches[np.argsort(-connected, kind="stable")[:most]]
        chosen[a][matches[:, 0]] = chosen[b][matches[:, 1]] = True
    kept = sum(int(_kept(chosen, a, b, matches).sum()) for a, b, matches in _pairs(connection, ids))
    return chosen if kept <= _WORTH_IT * sum(count for *_, count in found) else None


def _quotas(found: _Rows) -> list[int]:
    """How many matches to choose of each pair; (P, 3) image, image and matches."""
    if not len(found):
        return []
    ends = found[:, :2].T.ravel()
    best = among_first(ends, np.lexsort((-np.tile(found[:, 2], 2), ends)), _BEST)
    return [PER_PAIR if one else PER_OTHER for one in best.tolist()]


def _pairs(connection: sqlite3.Connection, ids: Collection[int]) -> Iterator[tuple[int, int, _Rows]]:
    """Image, image and (M, 2) matches of the accepted pairs between some images."""
    for number, data in connection.execute("SELECT pair_id, data FROM two_view_geometries WHERE rows > 0"):
        a, b = divmod(number, MOST_IMAGES)
        if a in ids and b in ids:
            yield a, b, np.frombuffer(data, np.uint32).reshape(-1, 2).astype(np.int64)


def _kept(chosen: dict[int, NDArray[np.bool_]], a: int, b: int, matches: _Rows) -> NDArray[np.bool_]:
    return np.asarray(chosen[a][matches[:, 0]] & chosen[b][matches[:, 1]], bool)


def _copy_small(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """The schema, and all tables but the large ones."""
    (version,) = source.execute("PRAGMA user_version").fetchone()  # COLMAP's own
    target.execute(f"PRAGMA user_version = {int(version)}")
    target.execute("PRAGMA synchronous = OFF")  # it lives as long as the mapper
    made = source.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' "
        "ORDER BY type <> 'table'"
    ).fetchall()
    for kind, name, sql in made:
        target.execute(sql)
        if kind == "table" and name not in _LARGE:
            rows = source.execute(f'SELECT * FROM "{name}"')
            places = ", ".join("?" * len(rows.description))
            target.executemany(f'INSERT INTO "{name}" VALUES ({places})', rows)


def _copy_pairs(
    source: sqlite3.Connection, target: sqlite3.Connection, ids: Collection[int], chosen: dict[int, NDArray[np.bool_]]
) -> None:
    """Accepted pairs with the matches that stay."""
    rows = source.execute("SELECT * FROM two_view_geometries WHERE rows > 0")
    columns = [column[0] for column in rows.description]
    number_at, rows_at, data_at = (columns.index(name) for name in ("pair_id", "rows", "data"))
    insert = f"INSERT INTO two_view_geometries VALUES ({', '.join('?' * len(columns))})"
    for row in rows:
        a, b = divmod(row[number_at], MOST_IMAGES)
        if a in ids and b in ids:
            matches = np.frombuffer(row[data_at], np.uint32).reshape(-1, 2)
            few = matches[_kept(chosen, a, b, matches.astype(np.int64))]
            values = list(row)
            values[rows_at], values[data_at] = len(few), few.tobytes()
            target.execute(insert, values)
