"""Which images are mapped together."""

from pathlib import Path

from jobs import NAMES, accepted_database

from sfm_match.colmap.components import Component, components


def test_components_are_of_accepted_pairs_and_large_enough(tmp_path: Path) -> None:
    path = accepted_database(tmp_path / "a.db", [(0, 1), (0, 2), (1, 2), (2, 3), (4, 5), (6, 7), (7, 8)])
    found = components(path, NAMES, 3)
    assert [(one.names, one.held) for one in found] == [(NAMES[:4], 3), (NAMES[6:9], 1)]  # d, g and i hang on one pair
    assert found[1].inliers == {("g.jpg", "h.jpg"): 100, ("h.jpg", "i.jpg"): 100}
    assert components(path, NAMES, 2)[-1] == Component(NAMES[4:6], 2, {("e.jpg", "f.jpg"): 100})
