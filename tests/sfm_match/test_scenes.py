"""The main job on photographs."""

import json
import shutil
from pathlib import Path

import pytest
from evaluate_poses import evaluate
from jobs import sfm_match


@pytest.mark.scenes
def test_herz_jesus(scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "Herz-Jesus-P8"
    k = [line.split() for line in (scene / "K.txt").read_text().splitlines()]
    params = f"{k[0][0]},{k[1][1]},{k[0][2]},{k[1][2]}"
    camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", params]
    result = sfm_match("run", "--images", scene / "images", "--workspace", tmp_path, *camera)
    assert result.returncode == 0, result.stderr
    score = evaluate(tmp_path / "sparse" / "0", scene / "gt_cameras")
    assert score["registered"] == 8
    assert score["auc@5"] >= 0.93
    assert score["reprojection_error_px"] < 1.2


@pytest.mark.scenes
def test_exif_focal_and_names_that_need_care(scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "photos, of Berlin" / "größer  und\u00a0weiter"
    images.mkdir(parents=True)
    for number, photo in enumerate(sorted((scenes / "berlin" / "images").iterdir())):
        shutil.copy(photo, images / f"photo, {number} #ü.jpg")
    work = tmp_path / "work"
    result = sfm_match("run", "--images", images.parent, "--workspace", work, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["registered"] == 3
