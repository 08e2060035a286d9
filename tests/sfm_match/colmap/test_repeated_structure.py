"""Pairs of two places that look alike, beside views that show both."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.components import components
from sfm_match.colmap.repeated_structure import contradicted, trusted_components

WINDOWS = 40  # of each house
NAMES = [f"{number}.jpg" for number in range(1, 7)]
BOTH, LEFT, RIGHT = (0, 1, 2, 3), 4, 5  # images that see both houses; the left one alone; both, or the right one alone


def street(path: Path, *, apart: float = 500.0, false: int = WINDOWS - 5, seen_together: bool = True) -> Path:
    """Two houses of like windows, so many pixels apart; of 5, which sees the left one, matches are with 6's right one.

    Keypoints of images that see both: the left house's, then the right one's. Not `seen_together`: 1 to 4 and 6 have
    matches of one house each.
    """
    rng = np.random.default_rng(0)
    house = rng.uniform(0, 300, (WINDOWS, 2))
    with pycolmap.Database.open(str(path)) as opened:
        camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 1000, 1000, 800)
        camera_id = opened.write_camera(camera)
        for number, name in enumerate(NAMES):
            image = opened.write_image(pycolmap.Image(name=name, camera_id=camera_id))
            seen = [house] if number == LEFT else [house, house + (apart, 0)]
            opened.write_keypoints(image, np.concatenate(seen).astype(np.float32))

        def matched(a: int, b: int, first: np.ndarray, second: np.ndarray) -> None:
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
            geometry.inlier_matches = np.stack((first, second), axis=1).astype(np.uint32)
            opened.write_two_view_geometry(a + 1, b + 1, geometry)

        windows = np.arange(WINDOWS)
        for a in BOTH:
            for b in BOTH:
                if a < b and seen_together:
                    matched(a, b, np.arange(2 * WINDOWS), np.arange(2 * WINDOWS))
                elif a < b:  # each of them is of one house
                    matched(a, b, windows + WINDOWS * (a % 2), windows + WINDOWS * (b % 2))
            if seen_together or a % 2 == 0:
                matched(a, LEFT, windows, windows)
            if seen_together:
                matched(a, RIGHT, np.arange(2 * WINDOWS), np.arange(2 * WINDOWS))
            elif a % 2 == 1:
                matched(a, RIGHT, windows + WINDOWS, windows + WINDOWS)
        matched(LEFT, RIGHT, windows[:false], windows[:false] + WINDOWS)
    return path


def inliers(path: Path) -> dict[tuple[str, str], int]:
    (component,) = components(path, NAMES, 3)
    return component.inliers


def test_a_pair_that_makes_one_of_two_houses_is_found(tmp_path: Path) -> None:
    path = street(tmp_path / "a.db")
    assert contradicted(path, inliers(path)) == {("5.jpg", "6.jpg")}


def test_the_order_of_pairs_does_not_matter(tmp_path: Path) -> None:
    path = street(tmp_path / "a.db")
    turned = {(b, a): count for (a, b), count in reversed(inliers(path).items())}
    assert contradicted(path, turned) == {("6.jpg", "5.jpg")}


def test_keypoints_side_by_side_are_no_contradiction(tmp_path: Path) -> None:
    """A detector may see a point twice, and matches take one or the other."""
    path = street(tmp_path / "a.db", apart=2.0)
    assert contradicted(path, inliers(path)) == set()


def test_houses_that_no_view_shows_together_may_be_one(tmp_path: Path) -> None:
    path = street(tmp_path / "a.db", seen_together=False)
    assert contradicted(path, inliers(path)) == set()


def test_too_many_keypoints_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = street(tmp_path / "a.db")
    monkeypatch.setattr("sfm_match.colmap.repeated_structure._MOST", 100)
    assert contradicted(path, inliers(path)) == set()


def test_components_are_of_the_other_pairs(tmp_path: Path) -> None:
    path = street(tmp_path / "a.db")
    (component,), doubted = trusted_components(path, NAMES, 3)
    assert doubted == 1
    assert set(inliers(path)) - set(component.inliers) == {("5.jpg", "6.jpg")}
    assert component.names == NAMES
