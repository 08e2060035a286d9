"""`--to bundler`, read by the user's manual of Bundler 0.4."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from distorted import Distorted

import sfm_match
from sfm_match.errors import UsageError
from sfm_match.formats import bundler


def largest_error(out: Path, model: pycolmap.Reconstruction) -> float:
    """Pixels between COLMAP's projections of points and those of the file's cameras."""
    first, *lines = (out / "bundle.out").read_text().splitlines()
    assert first == "# Bundle file v0.3"
    names, tokens = (out / "list.txt").read_text().split(), iter(" ".join(lines).split())

    def take(count: int) -> np.ndarray:
        return np.array([float(next(tokens)) for _ in range(count)])

    images, points = take(2).astype(int)
    assert (images, points) == (len(names), model.num_points3D())
    cameras = [(take(3), take(9).reshape(3, 3), take(3)) for _ in range(images)]
    by_name = {image.name: image for image in model.images.values()}
    errors = []
    for _ in range(points):
        position, colour = take(3), take(3)
        assert ((colour >= 0) & (colour <= 255)).all()
        for _ in range(int(take(1)[0])):
            number, key = take(2).astype(int)
            image = by_name[names[number]]
            (f, k1, k2), rotation, t = cameras[number]
            x, y, z = rotation @ position + t
            p = np.array((-x / z, -y / z))
            pixel = f * (1 + k1 * (p @ p) + k2 * (p @ p) ** 2) * p
            camera = model.cameras[image.camera_id]
            raw = (pixel[0] + camera.width / 2, camera.height / 2 - pixel[1])
            errors.append(np.abs(raw - image.project_point(position)).max())
            seen = take(2)
            raw = (seen[0] + camera.width / 2, camera.height / 2 - seen[1])
            errors.append(np.abs(raw - image.points2D[key].xy).max())
    assert next(tokens, None) is None
    return float(max(errors))


def test_points_are_where_colmap_says(finished: Path, tmp_path: Path) -> None:
    assert sfm_match.convert(finished, to="bundler", out=tmp_path) == [tmp_path / "bundle.out", tmp_path / "list.txt"]
    assert largest_error(tmp_path, sfm_match.open(finished).model) <= 1e-6


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("OPENCV", (900.0, 900.0, 400.0, 300.0, 0.1, 0.0, 0.0, 0.0)),
        ("PINHOLE", (900.0, 901.0, 400.0, 300.0)),
        ("SIMPLE_RADIAL", (900.0, 410.0, 300.0, 0.1)),
    ],
)
def test_other_cameras_are_refused(name: str, params: tuple[float, ...]) -> None:
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_frames_per_rig=1, num_points3D=10))
    image = next(iter(model.images.values()))
    camera = pycolmap.Camera(model=name, width=800, height=600, params=params, camera_id=7)
    with pytest.raises(UsageError, match=f"--to bundler: camera 7, {name} .*: accepted are SIMPLE_PINHOLE, .*; run "):
        list(bundler._camera_lines(image, camera))


def test_names_with_spaces_are_refused(distorted: Distorted, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"left/b 1\.jpg: Bundler's lists hold no names with spaces"):
        sfm_match.convert(distorted.work, to="bundler", out=tmp_path)
