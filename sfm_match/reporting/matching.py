"""What the database says of a job: keypoints, pairs with their verdicts, the graph of accepted pairs."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs.graph import Graph, SparseCertificate
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS, columns, matches_of, open_for_reading
from sfm_match.errors import SfmMatchError
from sfm_match.images.coordinates import plan_geometry
from sfm_match.images.files import Header
from sfm_match.matching.acceptance import Verdict
from sfm_match.reporting.packing import KEYPOINTS, MATCHES, REJECTED, quantised, spread
from sfm_match.reporting.packing import PAIRS as MOST_PAIRS
from sfm_match.store.columns import Names

_LEAST_DRAWN = 8  # matches of a pair that is drawn at all
_MOST_DRAWN = 400  # matches of a pair: more are a blot
_READ = 1 << 16  # pairs that are read together
_BRIDGES = 200  # the weakest ones, where there are more


def _none(width: int) -> NDArray[np.int32]:
    return np.empty((0, width), np.int32)


@dataclass(frozen=True)
class Bridge:
    """An accepted pair that alone connects two parts of the graph."""

    pair: tuple[int, int]
    inliers: int
    behind: int  # images of the smaller part


@dataclass
class Matching:
    """Images are places in the list of names."""

    keypoints: NDArray[np.int64]  # (N,) of each image, -1 where there are none yet
    tried: NDArray[np.int64]  # (N,) judged pairs of each image
    partners: NDArray[np.int64]  # (N,) accepted pairs of each image
    # (E, 3) i < j, inliers: of all or, where there are very many, those with most; most inliers first
    accepted: NDArray[np.integer] = field(default_factory=lambda: _none(3))
    # (R, 3) i < j, place in `verdicts`; of none, where there are very many
    rejected: NDArray[np.integer] = field(default_factory=lambda: _none(3))
    verdicts: dict[str, int] = field(default_factory=dict)  # verdict -> pairs
    component: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (N,) 0 is the largest
    bridges: list[Bridge] = field(default_factory=list)  # the one that holds most images first

    @property
    def sizes(self) -> list[int]:
        """Images of each component of two or more, largest first."""
        return [size for size in np.bincount(self.component).tolist() if size > 1]


@dataclass(frozen=True)
class Drawn:
    """Keypoints and matches to draw: 16 bits of the width and the height of the upright image."""

    starts: NDArray[np.uint32]  # (N + 1,) first keypoint of each image
    keypoints: NDArray[np.uint16]  # (K, 2) x, y
    match_starts: NDArray[np.uint32]  # (E + 1,) first match of each accepted pair
    matches: NDArray[np.uint16]  # (M, 4) x, y in both images


def read_matching(database: Path, names: Names) -> Matching:
    """Counts and verdicts. Images of the database that are not in `names` are passed over."""
    with closing(open_for_reading(database)) as connection:
        place = _places(connection, names)
        keypoints = np.full(len(names), -1, np.int64)
        for image, rows in connection.execute("SELECT image_id, rows FROM keypoints"):
            if place[image] >= 0:
                keypoints[place[image]] = rows
        partners, accepted, backbone = _accepted(connection, place, len(names))
        verdicts, refused, rejected = _judged(connection, place, len(names))
    component, bridges = _graph(len(names), backbone)
    return Matching(keypoints, partners + refused, partners, accepted, rejected, verdicts, component, bridges)


def read_drawn(database: Path, names: Names, headers: Mapping[str, Header], accepted: NDArray[np.integer]) -> Drawn:
    """The strongest keypoints of each image, and inliers of the accepted pairs, evenly chosen.

    Args:
        database: as `import` left it.
        names: of the images.
        headers: by name; an image without one has no keypoints here.
        accepted: (E, 3) as in `Matching`.
    """
    count, wanted = len(names), KEYPOINTS // max(len(names), 1)
    each = min(_MOST_DRAWN, max(MATCHES // max(len(accepted), 1), _LEAST_DRAWN))
    with closing(open_for_reading(database)) as connection:
        place = _places(connection, names)
        there = np.zeros(count, np.int64)
        for image, rows in connection.execute("SELECT image_id, rows FROM keypoints"):
            here = int(place[image])
            if here >= 0 and names[here] in headers:
                there[here] = min(rows, wanted)
        first = _starts(there)
        keypoints = np.empty((int(first[-1]), 2), np.uint16)  # not an array of each image: of many, those take more
        shown = accepted[: MATCHES // each, :2]
        starts = _starts(np.minimum(accepted[: len(shown), 2], each))
        starts = np.concatenate((starts, np.full(len(accepted) - len(shown), starts[-1])))
        indices = _chosen_matches(connection, _images(place, count)[shown], starts, each)
        matches = np.empty((len(indices), 2, 2), np.uint16)  # M, side, x and y
        uses = np.argsort(shown.ravel(), kind="stable")  # 2 * pair + side, image by image
        firsts = np.searchsorted(shown.ravel()[uses], np.arange(count + 1))
        for image, data, width in connection.execute("SELECT image_id, data, cols FROM keypoints"):
            here = int(place[image])
            if here < 0 or names[here] not in headers:
                continue
            points = _upright(np.frombuffer(data, np.float32).reshape(-1, width)[:, :2], headers[names[here]])
            keypoints[first[here] : first[here + 1]] = points[:wanted]
            for number, side in np.stack(np.divmod(uses[firsts[here] : firsts[here + 1]], 2), axis=1).tolist():
                part = slice(starts[number], starts[number + 1])
                matches[part, side] = points[indices[part, side]]
    return Drawn(first, keypoints, starts, matches.reshape(-1, 4))


def _starts(counts: NDArray[np.integer]) -> NDArray[np.uint32]:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.uint32)


def _upright(raw: NDArray[np.float32], header: Header) -> NDArray[np.uint16]:
    """(N, 2) raw pixels to 16 bits of the upright image."""
    whole = plan_geometry((header.width, header.height), header.orientation, max(header.width, header.height), 1)
    size = np.array(whole.oriented_size, np.float64)
    return quantised(whole.upright_from_raw(raw), np.zeros(2), size)


def _chosen_matches(
    connection: sqlite3.Connection, pairs: NDArray[np.int64], starts: NDArray[np.uint32], each: int
) -> NDArray[np.uint32]:
    """(M, 2) keypoint indices in both images of each of (P, 2) pairs of image_ids; `starts` has a pair's first one.

    Raises SfmMatchError where the database is not the one that the pairs were read from.
    """
    found = np.empty((int(starts[len(pairs)]), 2), np.uint32)
    numbers = np.sort(pairs, axis=1) @ (MOST_IMAGES, 1)
    for number in np.argsort(numbers).tolist():  # as they lie in the database
        query = "SELECT data FROM two_view_geometries WHERE pair_id = ?"
        row, part = connection.execute(query, (int(numbers[number]),)).fetchone(), slice(*starts[number : number + 2])
        indices = matches_of(row[0]) if row is not None else _none(2)
        indices = indices[spread(len(indices), each)]
        if len(indices) != part.stop - part.start:
            raise SfmMatchError("it changed while it was read")
        turned = pairs[number, 0] > pairs[number, 1]
        found[part] = indices[:, ::-1] if turned else indices
    return found


def _places(connection: sqlite3.Connection, names: Names) -> NDArray[np.int64]:
    """image_id -> place in `names`, or -1."""
    ((most,),) = connection.execute("SELECT MAX(image_id) FROM images")
    place = np.full((most or 0) + 1, -1, np.int64)
    for image, name in connection.execute("SELECT image_id, name FROM images"):
        found = names.find(name)
        place[image] = -1 if found is None else found
    return place


def _images(place: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(count,) place in the names -> image_id, of those that have one."""
    images = np.zeros(count, np.int64)
    here = np.flatnonzero(place >= 0)
    images[place[here]] = here
    return images


def _numbered(rows: Iterable[tuple[int, int]], place: NDArray[np.int64]) -> Iterator[NDArray[np.int32]]:
    """(P, 3) i < j and a number, of rows of COLMAP's pair_id and the number; some at a time."""
    rows = iter(rows)
    while (some := columns(islice(rows, _READ))).size:
        ends = np.sort(place[np.stack(np.divmod(some[0], MOST_IMAGES), axis=1)], axis=1)
        yield np.column_stack((ends, some[1]))[(ends >= 0).all(axis=1)].astype(np.int32)


def _of_images(pairs: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """(count,) of each image, in how many of (P, 3) pairs it is."""
    first, second = (np.bincount(ends, minlength=count) for ends in pairs[:, :2].T)
    return first + second


def _accepted(
    connection: sqlite3.Connection, place: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """(N,) accepted pairs of each image, (E, 3) those with most inliers, and (B, 3) those that keep the graph whole."""
    partners, most, backbone, certificate = np.zeros(count, np.int64), _none(3), [_none(3)], SparseCertificate(count)
    rows = connection.execute("SELECT pair_id, rows FROM two_view_geometries WHERE rows > 0")
    for some in _numbered(rows, place):
        partners += _of_images(some, count)
        backbone.append(some[certificate.add(some[:, :2])])
        most = np.concatenate((most, some))
        most = most[np.argsort(-most[:, 2], kind="stable")[:MOST_PAIRS]]
    return partners, most, np.concatenate(backbone)


def _judged(
    connection: sqlite3.Connection, place: NDArray[np.int64], count: int
) -> tuple[dict[str, int], NDArray[np.int64], NDArray[np.int32]]:
    """Verdict -> pairs; (N,) rejected pairs of each image; (R, 3) with the place of the verdict, unless too many."""
    refused, rejected = np.zeros(count, np.int64), _none(3)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (PAIRS,)).fetchone():
        return {}, refused, rejected
    query = f"SELECT verdict, COUNT(*) FROM {PAIRS} WHERE verdict IS NOT NULL GROUP BY verdict ORDER BY COUNT(*) DESC"
    verdicts = {str(verdict): int(pairs) for verdict, pairs in connection.execute(query)}
    number = {verdict: i for i, verdict in enumerate(verdicts)}
    query = f"SELECT pair_id, verdict FROM {PAIRS} WHERE verdict IS NOT NULL AND verdict != ?"
    rows = connection.execute(query, (Verdict.ACCEPTED,))
    for some in _numbered(((pair, number[verdict]) for pair, verdict in rows), place):
        refused += _of_images(some, count)
        rejected = np.concatenate((rejected, some))[: REJECTED + 1]
    return verdicts, refused, rejected if len(rejected) <= REJECTED else _none(3)


def _graph(count: int, backbone: NDArray[np.int32]) -> tuple[NDArray[np.int64], list[Bridge]]:
    """(N,) components, the largest first, and the bridges, from pairs that keep both."""
    graph = Graph(count, backbone[:, :2])
    component = graph.components()
    order = np.argsort(-np.bincount(component, minlength=1), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    component = rank[component] if count else component
    sizes = np.bincount(component, minlength=1)
    connecting = np.array(graph.bridges(), np.int64).reshape(-1, 2) @ (count, 1)
    inliers = backbone[np.isin(backbone[:, :2] @ (count, 1), connecting)]
    bridges = []
    for i, j, found in inliers[np.argsort(inliers[:, 2], kind="stable")][:_BRIDGES].tolist():
        side = len(graph.breadth_first(i, cut=j))
        bridges.append(Bridge((i, j), found, min(side, int(sizes[component[i]]) - side)))
    return component, sorted(bridges, key=lambda one: -one.behind)
