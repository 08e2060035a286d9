"""Points by poses."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap import triangulation
from sfm_match.colmap.triangulation import triangulated


def test_points_are_found_again_and_cameras_stay(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 6
    options.num_points3D = 200
    with pycolmap.Database.open(str(path)) as opened:
        truth = pycolmap.synthesize_dataset(options, opened)
    some = pycolmap.Reconstruction(truth)
    for number in sorted(some.points3D)[20:]:
        some.delete_point3D(number)
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
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 24
    options.num_points3D, options.match_config = 100, pycolmap.SyntheticDatasetMatchConfig.CHAINED
    with pycolmap.Database.open(str(path)) as opened:
        truth = pycolmap.synthesize_dataset(options, opened)
    some = pycolmap.Reconstruction(truth)
    for number in sorted(some.points3D)[5:]:
        some.delete_point3D(number)
    found = triangulated(some, path, {image.name for image in truth.images.values()}, seed=0)
    assert found.num_points3D() == truth.num_points3D()
    assert found.compute_mean_track_length() == truth.compute_mean_track_length()
