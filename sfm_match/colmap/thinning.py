"""A database with few matches, with which the poses of images are found in a fraction of the time.

A mapper's time goes into adjustments, and theirs with the observations. Where images are, a few hundred points tell as
well as thousands; the rest is triangulated once the poses are known (`triangulation`), and one adjustment of all points
makes the model as exact as if all had been there from the start.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs.prune import among_first
from sfm_match.colmap.partial_database import Rows, Source, copy_keypoints, copy_small
from sfm_match.colmap.queries import matches_of

# Matches of a pair, at least, where it has as many: of the pairs that are among the best of one of their images, and of
# the others, which may be all that connects two parts: as many as place an image. With 50 of the best, AUC@1 degree of
# entry-P10 at 640 pixels falls from .931 to .923; with 100 that of no scene with truth falls by more than .0006.
PER_PAIR, PER_OTHER = 100, 30
_BEST = 10  # pairs of an image: those with most matches
_WORTH_IT = 0.4  # share of the matches that may be left, at most: with more there is little to gain
_Chosen = dict[int, NDArray[np.bool_]]  # image -> (N,) which of its keypoints are in a match that is chosen


def thinned(database: Path, copy: Path, inliers: Mapping[tuple[str, str], int]) -> Path | None:
    """A copy of a database, of some images, in which each accepted pair keeps matches of well connected keypoints.

    Of each pair, `PER_PAIR` or `PER_OTHER` matches are chosen whose keypoints are matched in most images: they make the
    longest tracks, and those that a pair chooses are mostly chosen by the other pairs of its images, too. A match stays
    where both of its keypoints are in a match that is chosen, so that tracks stay whole. A weak pair stays as it is:
    what was connected is connected.

    Args:
        database: as `import` leaves it.
        copy: path of the new one; no file is there.
        inliers: accepted pairs of names, and how many matches each has; these are copied, and all that is small.

    Returns:
        `copy`, or None, and no file, where it would keep most of the matches.
    """
    with closing(sqlite3.connect(database)) as connection:
        source = Source.of(connection, inliers)
        chosen = _chosen(source)
        kept = sum(int(_stays(chosen, a, b, matches).sum()) for a, b, matches in source.each())
        if kept > _WORTH_IT * source.counts.sum():
            return None
        with closing(sqlite3.connect(copy)) as target:
            copy_small(connection, target)
            copy_keypoints(connection, target, sorted(chosen))
            _copy_pairs(source, target, chosen)
            target.commit()
    return copy


def _chosen(source: Source) -> _Chosen:
    """Which keypoints are in the best connected matches of a pair."""
    query = "SELECT rows FROM keypoints WHERE image_id = ?"
    counts = {
        image: source.connection.execute(query, (image,)).fetchone()[0] for image in np.unique(source.pairs).tolist()
    }
    partners = {image: np.zeros(rows, np.int32) for image, rows in counts.items()}
    for a, b, matches in source.each():
        for image, column in ((a, 0), (b, 1)):  # a keypoint is in one match of a pair
            partners[image][matches[:, column]] += 1
    chosen = {image: np.zeros(rows, bool) for image, rows in counts.items()}
    ends = source.pairs.T.ravel()
    best = among_first(ends, np.lexsort((-np.tile(source.counts, 2), ends)), _BEST)
    for (a, b, matches), most in zip(source.each(), np.where(best, PER_PAIR, PER_OTHER).tolist(), strict=True):
        if len(matches) > most:
            connected = np.minimum(partners[a][matches[:, 0]], partners[b][matches[:, 1]])
            matches = matches[np.argsort(-connected, kind="stable")[:most]]
        chosen[a][matches[:, 0]] = chosen[b][matches[:, 1]] = True
    return chosen


def _stays(chosen: _Chosen, a: int, b: int, matches: Rows) -> NDArray[np.bool_]:
    return np.asarray(chosen[a][matches[:, 0]] & chosen[b][matches[:, 1]], bool)


def _copy_pairs(source: Source, target: sqlite3.Connection, chosen: _Chosen) -> None:
    """Accepted pairs with the matches that stay."""
    columns = "pair_id, cols, config, F, E, H, qvec, tvec"
    for a, b, (data, *rest) in source.rows(f"data, {columns}"):
        matches = matches_of(data)
        few = matches[_stays(chosen, a, b, matches.astype(np.int64))]
        insert = f"INSERT INTO two_view_geometries ({columns}, rows, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        target.execute(insert, (*rest, len(few), few.tobytes()))
