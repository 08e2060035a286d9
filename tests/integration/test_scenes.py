"""The main job on photographs."""

import json
import shutil
from pathlib import Path

import pytest
from evaluate_poses import evaluate
from jobs import sfm_match


@pytest.mark.scenes
@pytest.mark.parametrize(
    "options", [["--size", "640", "--max-keypoints", "2048"], pytest.param([], marks=pytest.mark.slow)]
)
def test_herz_jesus(options: list[str], scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "Herz-Jesus-P8"
    k = [line.split() for line in (scene / "K.txt").read_text().splitlines()]
    params = f"{k[0][0]},{k[1][1]},{k[0][2]},{k[1][2]}"
    camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", params]
    result = sfm_match("run", "--images", scene / "images", "--workspace", tmp_path, *camera, *options)
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


def strangers(scenes: Path, folder: Path, count: int) -> None:
    """Pictures that have nothing to do with one another."""
    folder.mkdir(parents=True)
    for photo in sorted((scenes.parent / "train" / "bsds500").iterdir())[:: 500 // count][:count]:
        shutil.copy(photo, folder / photo.name)


@pytest.mark.scenes
def test_strangers_end_in_no(scenes: Path, tmp_path: Path) -> None:
    strangers(scenes, tmp_path / "images", 12)
    work = tmp_path / "work"
    result = sfm_match("run", "--images", tmp_path / "images", "--workspace", work)
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1  # of COLMAP's own lines none
    assert "no model: " in result.stderr
    assert not (work / "sparse").exists()
    rows = (work / "unregistered.csv").read_text().splitlines()
    assert len(rows) == 13
    assert all("accepted" in row or "connected" in row or "not placed" in row for row in rows[1:])


@pytest.mark.scenes
def test_a_place_among_strangers(scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    strangers(scenes, images / "others", 8)
    shutil.copytree(scenes / "berlin" / "images", images / "berlin")
    work = tmp_path / "work"
    command = ["run", "--images", images, "--workspace", work, "--json", "--min-registered", "0.5"]
    result = sfm_match(*command)
    assert result.returncode == 1, result.stderr  # 3 of 11
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["registered"], report["total"], report["models"]) == (3, 11, 1)
    assert report["holds"] == "berlin"
    assert "m from GPS" in report["gps"]
    assert sum(report["unregistered"].values()) == 8
    assert {row.split("/")[0] for row in (work / "unregistered.csv").read_text().splitlines()[1:]} == {"others"}
    again = sfm_match(*command)
    assert again.returncode == 1
    assert json.loads(again.stdout.splitlines()[-1])["unregistered"] == report["unregistered"]
