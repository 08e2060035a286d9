"""Points get the colours that COLMAP would give them."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, features
from processes import no_more_files

from sfm_match.colmap.colours import colour_points
from sfm_match.images.files import decode


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_black_points(finished: Path, rendered: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("Pillow has no AVIF here")
    model = pycolmap.Reconstruction(str(finished / "sparse" / "0"))
    model.extract_colors_for_all_images(str(rendered))
    by_colmap = {number: point.color.astype(int) for number, point in model.points3D.items()}
    for image in model.images.values():
        path = (tmp_path / image.name).with_suffix(suffix)
        Image.open(rendered / image.name).save(path, quality=100, subsampling="4:4:4")
        image.name = path.name
    known, *others = list(model.points3D)
    for number in others:
        model.points3D[number].color = np.zeros(3, np.uint8)
    model.points3D[known].color = np.array([1, 2, 3], np.uint8)
    (tmp_path / image.name).unlink()  # one that cannot be read any more
    colour_points([model], tmp_path)
    assert model.points3D[known].color.tolist() == [1, 2, 3]
    off = [np.abs(model.points3D[number].color - by_colmap[number]).max() for number in others]
    assert np.median(off) <= 6  # COLMAP interpolates between pixels, and sees one photograph more
    assert np.percentile(off, 90) <= 40


def test_no_point_of_a_job_is_black(finished: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLMAP colours points as it places images, and finds more of them later. As few images as will do are read."""
    model = pycolmap.Reconstruction(str(finished / "sparse" / "0"))
    assert all(point.color.any() for point in model.points3D.values())
    read: list[str] = []

    def noted(path: Path, least: tuple[int, int]) -> np.ndarray:
        read.append(path.name)
        return decode(path, least)

    monkeypatch.setattr("sfm_match.colmap.colours.decode", noted)
    colour_points([model], rendered)
    assert not read
    shown = next(image for image in model.images.values() if image.num_points3D)
    for point in shown.get_observation_points2D():
        model.points3D[point.point3D_id].color = np.zeros(3, np.uint8)
    with no_more_files():  # a model without colours is one
        colour_points([model], rendered)
    assert read
    assert not all(point.color.any() for point in model.points3D.values())
    read.clear()
    colour_points([model], rendered)
    assert read == [shown.name]
    assert all(point.color.any() for point in model.points3D.values())
