"""Shared fixtures: the photographs where they are, and a small rendered scene that is always there."""

import os
from pathlib import Path

import cv2
import pytest

from sfm_match.scene import cameras, render, room

SMALL = ["--size", "512", "--max-keypoints", "1024"]  # options that keep a test of the whole job short


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of photographed scenes."""
    root = Path(os.environ.get("SFM_MATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "scenes").is_dir():
        pytest.skip(f"no photographs at {root}; set SFM_MATCH_DATA to their folder")
    return root / "scenes"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six views of the demo's room."""
    folder = tmp_path_factory.mktemp("rendered")
    planes = room()
    for view in cameras(16)[4:10]:
        cv2.imwrite(str(folder / view.name), render(view, planes)[..., ::-1])
    return folder
