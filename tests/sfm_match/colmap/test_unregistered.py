"""Every image that is in no model has its reason."""

import sqlite3
from pathlib import Path

from jobs import NAMES, accepted_database

from sfm_match.colmap.queries import MOST_IMAGES
from sfm_match.colmap.unregistered import ALONE, APART, UNPLACED, WEAK, reasons
from sfm_match.matching.acceptance import Verdict


def test_each_kind(tmp_path: Path) -> None:
    path = accepted_database(tmp_path / "a.db", [(0, 1), (1, 2), (0, 2), (2, 3), (2, 4), (5, 6)])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE sfm_match_pairs (pair_id, matches, strong, arrangement, significance, verdict)"
        )
        rejected = [(1, 8, 30, 2, Verdict.UNRELATED), (2, 8, 60, 4, Verdict.CHANCE), (3, 8, 70, 3, Verdict.UNRELATED)]
        connection.executemany(
            "INSERT INTO sfm_match_pairs VALUES (?, ?, ?, NULL, NULL, ?)",
            [(a * MOST_IMAGES + b, matches, strong, verdict) for a, b, matches, strong, verdict in rejected],
        )
    connection.close()
    found = reasons(path, NAMES[:3], {"e.jpg": 12}, 3)
    assert found["d.jpg"] == (UNPLACED, "the mapper could not place it; best with c.jpg (100 inliers)")
    assert found["e.jpg"] == (WEAK, "the mapper placed it by 12 points")
    assert found["f.jpg"] == (APART, "2 images, with g.jpg (100 inliers); a model needs 3")
    assert found["h.jpg"] == (ALONE, "of 3; nearest b.jpg (60 matches, 4 strong: geometry no better than chance)")
    assert found["i.jpg"] == (ALONE, "it was matched with none")
    assert found.keys() == set(NAMES[3:])


def test_a_component_without_a_model(tmp_path: Path) -> None:
    path = accepted_database(tmp_path / "a.db", [(0, 1), (1, 2)])
    found = reasons(path, [], {}, 3)
    assert found["a.jpg"] == (UNPLACED, "no model of the 3 images it is connected to; best with b.jpg (100 inliers)")
