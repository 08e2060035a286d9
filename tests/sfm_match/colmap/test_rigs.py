"""Two virtual cameras that move together come out as a rig, whether the file says where they are or not."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from conftest import FINISHED, Shared
from jobs import sfm_match as command

import sfm_match
from sfm_match.colmap.rigs import has_places, read_rigs
from sfm_match.commands.scene import Rectangle, View, cameras, render
from sfm_match.errors import UsageError

ANGLE, STEP = np.radians(15), np.array([0.15, 0.0, 0.0])
TURN = np.array([[np.cos(ANGLE), 0, np.sin(ANGLE)], [0, 1, 0], [-np.sin(ANGLE), 0, np.cos(ANGLE)]])
LEFT: dict[str, Any] = {"image_prefix": "left/", "ref_sensor": True}
RIGHT: dict[str, Any] = {"image_prefix": "right/"}


@pytest.fixture(scope="session")
def pairs_of_views(planes: list[Rectangle], shared: Shared) -> Path:
    """Five positions, each seen by a left and a right camera."""

    def make(folder: Path) -> None:
        for view in cameras(16)[4:9]:
            sides = {
                "left": view,
                "right": View(view.name, TURN @ view.rotation, view.centre + view.rotation.T @ STEP),
            }
            for side, one in sides.items():
                (folder / side).mkdir(exist_ok=True)
                small = cv2.resize(render(one, planes), (480, 360), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(folder / side / view.name), small[..., ::-1])

    return shared("rig", make)


def configuration(path: Path, *cameras: dict[str, Any]) -> Path:
    path.write_text(json.dumps([{"cameras": list(cameras)}]))
    return path


@pytest.mark.parametrize("known", [True, False])
def test_a_rig_comes_out_as_one(known: bool, pairs_of_views: Path, tmp_path: Path) -> None:
    x, y, z, w = pycolmap.Rotation3d(TURN).quat.tolist()
    place = {"cam_from_rig_rotation": [w, x, y, z], "cam_from_rig_translation": (-TURN @ STEP).tolist()}
    file = configuration(tmp_path / "rig.json", LEFT, {**RIGHT, **place} if known else RIGHT)
    assert has_places(read_rigs(file, ["left/a.jpg", "right/a.jpg"])) is known
    reports = sfm_match.run(pairs_of_views, tmp_path / "work", rig_config=file, pairs="exhaustive", **FINISHED)
    assert reports[-1].facts["registered"] == 10
    model = sfm_match.open(tmp_path / "work").model
    assert (model.num_rigs(), model.num_cameras(), model.num_frames()) == (1, 2, 5)
    (rig,) = model.rigs.values()
    (right_from_left,) = rig.non_ref_sensors.values()
    assert right_from_left is not None
    off = right_from_left.rotation * pycolmap.Rotation3d(TURN).inverse()
    assert np.degrees(off.angle()) < 0.3
    step = right_from_left.translation / np.linalg.norm(right_from_left.translation)
    assert step @ (-TURN @ STEP) / np.linalg.norm(STEP) > np.cos(np.radians(8))
    if known:  # then the rig brings its own scale
        assert np.linalg.norm(right_from_left.translation) == pytest.approx(0.15, rel=0.1)
    assert sfm_match.reconstruct(tmp_path / "work").cached == 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nothing", "must be COLMAP's JSON"),
        ("[]", "no rig in it"),
        (json.dumps([{"cameras": [LEFT, {"image_prefix": "middle/"}]}]), "no image has the prefix middle/"),
        ("[" * 100_000, "must be COLMAP's JSON"),  # COLMAP's reader overflows its stack
        (json.dumps({"cameras": [LEFT]}), "Expected `array`"),
        (json.dumps([{"cameras": [LEFT | {"cam_from_rig_rotation": [1, 0, 0]}]}]), "rotation must be 4 finite"),
        ('[{"cameras": [{"image_prefix": "l", "cam_from_rig_translation": [1, 1e999, 0]}]}]', "rig.json: "),
        (
            json.dumps([{"cameras": [LEFT | {"camera_model_name": "PINHOLE", "camera_params": [1, 2]}]}]),
            "left/: PINHOLE takes 4",
        ),
        (json.dumps([{"cameras": [RIGHT]}]), ": Rig must have one reference sensor"),
    ],
)
def test_wrong_files_are_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rig.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        read_rigs(tmp_path / "rig.json", ["left/a.jpg", "right/a.jpg"])


def test_a_wrong_file_is_refused_before_anything_is_computed(pairs_of_views: Path, tmp_path: Path) -> None:
    file = configuration(tmp_path / "rig.json", LEFT, {"image_prefix": "middle/"})
    said = command("run", "--images", pairs_of_views, "--workspace", tmp_path / "work", "--rig-config", file)
    assert said.returncode == 2
    assert "no image has the prefix middle/" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "work" / "features").exists()
