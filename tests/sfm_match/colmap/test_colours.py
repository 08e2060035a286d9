"""Points that only AVIF images show get the colours that COLMAP gives to those of the same photographs as JPEGs."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, features

from sfm_match.colmap.colours import colour_points


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF here")
def test_black_points(finished: Path, rendered: Path, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction(str(finished / "sparse" / "0"))
    by_colmap = {number: point.color.astype(int) for number, point in model.points3D.items()}
    for image in model.images.values():
        path = (tmp_path / image.name).with_suffix(".avif")
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
