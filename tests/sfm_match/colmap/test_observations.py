"""Observations of a model as arrays, against those that pycolmap gives one by one."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from processes import no_more_files

from sfm_match.colmap.observations import observations


@pytest.mark.parametrize("files", [True, False])
def test_equal_those_of_pycolmap(finished: Path, files: bool) -> None:
    model = pycolmap.Reconstruction(str(finished / "sparse" / "0"))
    first, *_, last = model.images.values()
    first.name = "a folder/ü.jpg"
    model.deregister_frame(last.frame_id)
    with nullcontext() if files else no_more_files():
        found = observations(model)
    assert found.keys() == {number for number, image in model.images.items() if image.has_pose}
    assert last.image_id not in found
    for number, seen in found.items():
        expected = model.images[number].get_observation_points2D()
        assert seen.points.tolist() == [one.point3D_id for one in expected]
        np.testing.assert_array_equal(seen.xy, np.array([one.xy for one in expected]).reshape(-1, 2))
    assert sum(len(seen.points) for seen in found.values()) == model.compute_num_observations() > 0


def test_a_full_disk(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLMAP writes what there is room for, and does not look."""
    model = pycolmap.Reconstruction(str(finished / "sparse" / "0"))
    whole, read = observations(model), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path)[: 3 * path.stat().st_size // 4])
    cut = observations(model)
    for number, seen in whole.items():
        np.testing.assert_array_equal(cut[number].points, seen.points)


def test_of_no_image() -> None:
    assert observations(pycolmap.Reconstruction()) == {}
