"""Synthetic matches lie on the lines of their cameras, and as far off as they are moved."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from evaluate_epipolar import distances, model_cameras


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_distances(noise: float, tmp_path: Path) -> None:
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 5
    options.num_points3D = 200
    options.camera_model_id, options.camera_params = pycolmap.CameraModelId.SIMPLE_RADIAL, [1280, 512, 384, 0.05]
    database = pycolmap.Database.open(str(tmp_path / "database.db"))
    model = pycolmap.synthesize_dataset(options, database)
    if noise:
        spoilt = pycolmap.SyntheticNoiseOptions()
        spoilt.point2D_stddev = noise
        pycolmap.synthesize_noise(spoilt, model, database)
    database.close()
    model.write(str(tmp_path))
    by_pair = list(distances(tmp_path / "database.db", model_cameras(tmp_path)))
    assert len({(a, b) for a, b, _ in by_pair}) == 10
    found = np.concatenate([one for *_, one in by_pair])
    assert len(found) > 1000
    # of a deviation of 0.5 px in each coordinate: 0.5 x 0.6745 in the median
    assert np.median(found) == pytest.approx(0.337 * noise / 0.5, rel=0.1, abs=1e-3)
