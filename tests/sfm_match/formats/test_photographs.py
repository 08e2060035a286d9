"""HEIC and AVIF, which few programs read, are written as JPEGs, and the files beside them say so."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pycolmap
import pytest
from distorted import Distorted
from PIL import Image, features

import sfm_match
from sfm_match.formats import nerfstudio, undistorted

RENAMED = "c.webp"  # of the job


@pytest.fixture
def with_avif(distorted: Distorted, tmp_path: Path) -> Any:
    """The results of the job, as if one photograph were an AVIF."""
    if not features.check("avif"):
        pytest.skip("Pillow has no AVIF here")
    results = sfm_match.open(distorted.work)
    photos = Path(shutil.copytree(results.image_folder, tmp_path / "photos"))
    Image.open(photos / RENAMED).save(photos / "c.avif", quality=100)
    (photos / RENAMED).unlink()
    model = pycolmap.Reconstruction(results.model)
    for image in model.images.values():
        image.name = "c.avif" if image.name == RENAMED else image.name
    return SimpleNamespace(model=model, image_folder=photos, mask_folder=results.mask_folder)


def test_undistorted(with_avif: Any, undistorted_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    undistorted.write(with_avif, out)
    names = {image.name for image in pycolmap.Reconstruction(str(out / "sparse" / "0")).images.values()}
    assert {path.relative_to(out / "images").as_posix() for path in (out / "images").rglob("*.*")} == names
    assert "c.avif.jpg" in names
    ours = np.asarray(Image.open(out / "images" / "c.avif.jpg")).astype(int)
    assert np.abs(ours - np.asarray(Image.open(undistorted_scene / "images" / RENAMED))).mean() < 3
    assert (out / "masks" / "c.avif.jpg.png").exists()


def test_nerfstudio(with_avif: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    nerfstudio.write(with_avif, out)
    frames = json.loads((out / "transforms.json").read_text())["frames"]
    (frame,) = [frame for frame in frames if frame["file_path"] == "images/c.avif.jpg"]
    with Image.open(out / frame["file_path"]) as image:
        assert (image.format, image.size) == ("JPEG", (800, 600))
    assert (out / frame["mask_path"]).exists()
