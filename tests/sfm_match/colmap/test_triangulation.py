"""Points by poses."""

from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap import triangulation
from sfm_match.colmap.triangulation import triangulated


def scene(path: Path, kept: int, **options: Any) -> tuple[pycolmap.Reconstruction, pycolmap.Reconstruction]:
    """Writes the database of a scene of one camera. The scene with so many of its points, and with all."""
    pycolmap.set_random_seed(0)
    chosen = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=1, **options)
    with pycolmap.Database.open(str(path)) as opened:
        truth = pycolmap.synthesize_dataset(chosen, opened)
    some = pycolmap.Reconstruction(truth)
    for number in sorted(some.points3D)[kept:]:
        some.delete_point3D(number)
    return some, truth


def test_points_are_found_again_and_cameras_stay(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    some, truth = scene(path, 20, num_frames_per_rig=6, num_points3D=200)
    found = triangulated(some, path, {image.name for image in truth.images.values()}, seed=0)
    assert some.num_points3D() == 20  # it stays as it was
    assert found.num_points3D() >= 0.95 * truth.num_points3D()
    assert found.compute_mean_reprojection_error() < 0.01
    for number, image in truth.images.items():
        np.testing.assert_array_equal(found.images[number].cam_from_world().matrix(), image.cam_from_world().matrix())
    for number, camera in truth.cameras.items():
        np.testing.assert_array_equal(found.cameras[number].params, camera.params)


@pytest.mark.parametrize("many", [3, 100])
def test_long_tracks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """Of a row of images, each matched with its neighbours alone."""
    monkeypatch.setattr(triangulation, "_MANY", many)
    path = tmp_path / "database.db"
    chained = pycolmap.SyntheticDatasetMatchConfig.CHAINED
    some, truth = scene(path, 5, num_frames_per_rig=24, num_points3D=100, match_config=chained)
    found = triangulated(some, path, {image.name for image in truth.images.values()}, seed=0)
    assert found.num_points3D() == truth.num_points3D()
    assert found.compute_mean_track_length() == truth.compute_mean_track_length()
