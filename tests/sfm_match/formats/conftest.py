"""A finished job over photographs of a distorted camera."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Shared
from distorted import Distorted, make_job, pinhole_pictures

import sfm_match


@pytest.fixture(scope="session")
def distorted(views: np.ndarray, shared: Shared) -> Distorted:
    folder = shared("distorted", lambda folder: make_job(folder, views))
    return Distorted(folder / "work", pinhole_pictures(views))


@pytest.fixture(scope="session")
def undistorted_scene(distorted: Distorted, shared: Shared) -> Path:
    """What `--to undistorted` makes of it."""
    return shared("undistorted", lambda out: sfm_match.convert(distorted.work, to="undistorted", out=out))


@pytest.fixture(scope="session")
def fountain(scenes: Path, shared: Shared) -> Path:
    """A finished job over photographs."""
    images = scenes / "fountain-P11" / "images"
    return shared("fountain", lambda folder: sfm_match.run(images, folder, pairs="exhaustive"))
