"""Pairs from a model that exists: poses and covisibility."""

import numpy as np
import pytest

from pairs import PairsError
from pairs.covisibility import covisibility
from pairs.poses import poses


def flat(blocks) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for block in blocks for i, j in block}


def ring(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cameras on a circle that look at its middle."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    places = np.stack((np.cos(angles), np.sin(angles), np.zeros(count)), axis=1)
    return places * 5, -places


def test_poses_take_the_nearest_that_look_the_same_way() -> None:
    centres, directions = ring(36)  # ten degrees apart
    assert flat(poses(centres, directions, 2)) == {tuple(sorted((i, (i + 1) % 36))) for i in range(36)}
    found = flat(poses(centres, directions, 36, rotation_threshold=25.0))
    assert found == {tuple(sorted((i, (i + k) % 36))) for i in range(36) for k in (1, 2)}
    assert flat(poses(centres, directions, 36, 180.0, pose_distance=0.9)) == flat(poses(centres, directions, 2))
    directions[7] *= -1  # back to back with its neighbours
    assert not {(6, 7), (7, 8)} & flat(poses(centres, directions, 2))


def test_poses_pass_over_images_without_one() -> None:
    centres, directions = ring(12)
    centres[4:] = np.nan
    assert flat(poses(centres, directions, 3, 180.0)) == {(i, j) for i in range(4) for j in range(i + 1, 4)}
    centres[1:] = np.nan
    with pytest.raises(PairsError, match="poses of 1 of the 12 images"):
        flat(poses(centres, directions))


def test_covisibility_counts_shared_points() -> None:
    seen = {0: range(10), 1: range(5, 15), 2: range(9, 12), 4: range(100, 104)}  # 3 sees nothing
    images = np.array([image for image, points in seen.items() for _ in points])
    points = np.array([point for points in seen.values() for point in points])
    assert flat(covisibility(5, images, points)) == {(0, 1), (0, 2), (1, 2)}
    assert flat(covisibility(5, images, points, num_matched=1)) == {(0, 1), (1, 2)}
    twice = np.concatenate((images, images)), np.concatenate((points, points))  # a track may hold an image twice
    assert flat(covisibility(5, *twice, num_matched=1)) == {(0, 1), (1, 2)}
    with pytest.raises(PairsError, match="no two images"):
        flat(covisibility(5, images[:10], points[:10]))
