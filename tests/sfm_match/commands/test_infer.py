"""Two images: matches lie on the true epipolar lines, and the picture shows them."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from epipolar import epipolar_distance
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.coordinates import plan_geometry


def test_matches_obey_the_true_cameras(rendered: Path, tmp_path: Path) -> None:
    a, b = rendered / "view05.jpg", rendered / "view07.jpg"
    result = sfm_match.infer(a, b, tmp_path / "viz.png", max_keypoints=1000, size=640)
    assert result.keypoints == (1000, 1000)
    assert result.inliers.sum() > 150
    distance = epipolar_distance(result.points_a, result.points_b, 5, 7)
    assert np.median(distance[result.inliers]) < 0.3
    plain = sfm_match.infer(a, b, adjust_keypoints=False, max_keypoints=1000, size=640)
    np.testing.assert_array_equal(plain.points_a, result.points_a)
    assert np.median(distance) < 0.6 * np.median(epipolar_distance(plain.points_a, plain.points_b, 5, 7))
    assert (distance[result.inliers] < 5).mean() > 0.95
    picture = cv2.imread(str(tmp_path / "viz.png"))
    assert picture is not None
    assert picture.shape == (720 + 68, 1920, 3)  # two lines of text below


def test_command_prints_a_line_or_json(rendered: Path) -> None:
    import json

    pair = [rendered / "view05.jpg", rendered / "view06.jpg", "--max-keypoints", "300", "--size", "320"]
    assert command("infer", *pair).stdout.startswith("infer 300 and 300 keypoints")
    found = json.loads(command("infer", *pair, "--json").stdout)
    assert len(found["points_a"]) == len(found["points_b"]) == len(found["scores"]) == len(found["inliers"]) > 20


def test_images_that_cannot_be_read(rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingDone, match="cannot be opened"):
        sfm_match.infer(rendered / "view05.jpg", tmp_path / "absent.jpg")
    flat = tmp_path / "flat.png"
    Image.new("RGB", (200, 200), "red").save(flat)
    assert not sfm_match.infer(rendered / "view05.jpg", flat, max_keypoints=300).inliers.any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_the_inverse_of_raw(orientation: int) -> None:
    geometry = plan_geometry((640, 480), orientation, 2000, 16)  # not resized: network pixels are upright ones
    upright = np.array([[10.5, 20.25], [300, 400]], np.float32)
    np.testing.assert_allclose(geometry.upright_from_raw(geometry.raw_from_network(upright)), upright, atol=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_pictures_that_lie_on_their_side(turns: int, rendered: Path, tmp_path: Path) -> None:
    """No EXIF tells how they lie: with `turns` they match as if they stood."""
    a, b = rendered / "view05.jpg", rendered / "view06.jpg"
    lying = tmp_path / "lying.png"
    picture = cv2.imread(str(b))
    assert picture is not None
    cv2.imwrite(str(lying), np.rot90(picture, turns))
    options: dict[str, Any] = {"max_keypoints": 600, "size": 480}
    upright = sfm_match.infer(a, b, turns=True, **options)
    found = sfm_match.infer(a, lying, turns=True, **options)
    assert found.inliers.sum() == pytest.approx(upright.inliers.sum(), rel=0.1)  # the image's padding turns, too
    assert sfm_match.infer(a, lying, **options).inliers.sum() < 0.5 * found.inliers.sum()
    stood = found.points_b
    for done in range(turns):  # each quarter back
        width = 960 if (turns - done) % 2 else 720
        stood = np.stack((width - stood[:, 1], stood[:, 0]), axis=1)
    assert np.median(epipolar_distance(found.points_a, stood, 5, 6)[found.inliers]) < 1


@pytest.mark.parametrize(
    ("viz", "said"),
    [
        ("a.jpg", "a.jpg: that is an input of this command"),
        ("link.jpg", "link.jpg: that is an input"),
        ("mine.png", "it is there; add --overwrite"),
        ("x.xyz", "must be a name that ends in .png, "),
        ("x", "must be a name that ends in .png, "),
        ("nowhere/x.png", "no such folder as"),
        ("folder.png", "that is a folder"),
    ],
)
def test_no_file_is_overwritten(rendered: Path, tmp_path: Path, viz: str, said: str) -> None:
    shutil.copy(rendered / "view05.jpg", tmp_path / "a.jpg")
    (tmp_path / "link.jpg").hardlink_to(tmp_path / "a.jpg")
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    overwrite = "input" in said
    with pytest.raises(UsageError, match=said):
        sfm_match.infer(tmp_path / "a.jpg", rendered / "view06.jpg", tmp_path / viz, overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_overwriting_is_said(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("mine")
    a, b = rendered / "view05.jpg", rendered / "view06.jpg"
    sfm_match.infer(a, b, tmp_path / "x.png", overwrite=True, max_keypoints=50, size=320)
    assert cv2.imread(str(tmp_path / "x.png")) is not None
