"""Why an image is in no model."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection as Names
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pairs.graph import Graph
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS, open_for_reading
from sfm_match.matching.acceptance import Verdict

ALONE, APART, UNPLACED, WEAK = "no accepted pair", "too few connected", "not placed", "too few points"


@dataclass
class _Rejected:
    """The pairs of an image that were not accepted."""

    pairs: int = 0
    nearest: tuple[bool, int, int, int, str] = field(default=(False, -1, -1, 0, ""))  # the one that came furthest


def reasons(database: Path, inside: Names[str], dropped: Mapping[str, int], least: int) -> dict[str, tuple[str, str]]:
    """Image -> kind of reason, and the reason with its figures; of all images of a database that are in no model.

    Args:
        database: as `import` leaves it.
        inside: images of the models.
        dropped: images that a mapper placed by too few points, and how many.
        least: images of a model.
    """
    with closing(open_for_reading(database)) as connection:
        name = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = connection.execute("SELECT pair_id, rows FROM two_view_geometries WHERE rows > 0").fetchall()
        rejected = _rejected(connection, {image for image, one in name.items() if one not in inside})
    accepted: dict[int, list[tuple[int, int]]] = defaultdict(list)  # image -> inliers, partner
    for pair, inliers in rows:
        a, b = divmod(pair, MOST_IMAGES)
        accepted[a].append((inliers, b))
        accepted[b].append((inliers, a))
    images = sorted(name)
    place = {image: i for i, image in enumerate(images)}
    edges = np.array([[place[end] for end in divmod(pair, MOST_IMAGES)] for pair, _ in rows], np.int64).reshape(-1, 2)
    component = Graph(len(images), edges).components()
    sizes = np.bincount(component, minlength=1)
    found = {}
    for image in images:
        own = name[image]
        if own in inside:
            continue
        connected = int(sizes[component[place[image]]])
        if own in dropped:
            found[own] = WEAK, f"the mapper placed it by {dropped[own]} points"
        elif not accepted[image]:
            found[own] = ALONE, _alone(rejected[image], name)
        elif connected < least:
            inliers, partner = max(accepted[image])
            found[own] = APART, f"{connected} images, with {name[partner]} ({inliers} inliers); a model needs {least}"
        else:
            placed = [(inliers, other) for inliers, other in accepted[image] if name[other] in inside]
            inliers, partner = max(placed or accepted[image])
            what = (
                "the mapper could not place it" if placed else f"no model of the {connected} images it is connected to"
            )
            found[own] = UNPLACED, f"{what}; best with {name[partner]} ({inliers} inliers)"
    return found


def _rejected(connection: sqlite3.Connection, images: set[int]) -> dict[int, _Rejected]:
    """Of each of these images."""
    found: dict[int, _Rejected] = defaultdict(_Rejected)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (PAIRS,)).fetchone():
        return found
    query = f"SELECT pair_id, matches, strong, verdict FROM {PAIRS} WHERE verdict != ?"
    for pair, matches, strong, verdict in connection.execute(query, (Verdict.ACCEPTED,)):
        ends = divmod(pair, MOST_IMAGES)
        for image, other in (ends, ends[::-1]):
            if image in images:
                one = found[image]
                one.pairs += 1
                had_geometry = verdict not in (Verdict.FEW, Verdict.UNRELATED)
                one.nearest = max(one.nearest, (had_geometry, strong, matches, other, verdict))
    return found


def _alone(rejected: _Rejected, name: Mapping[int, str]) -> str:
    if not rejected.pairs:
        return "it was matched with none"
    _, strong, matches, other, verdict = rejected.nearest
    return f"of {rejected.pairs}; nearest {name[other]} ({matches} matches, {strong} strong: {verdict})"
