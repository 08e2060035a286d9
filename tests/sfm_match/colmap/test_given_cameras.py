"""Cameras by patterns of names, from YAML to the model."""

from pathlib import Path

import pytest
from conftest import FINISHED

import sfm_match
from sfm_match.colmap.cameras import GivenCamera, all_given, given_cameras, plan_cameras
from sfm_match.colmap.given_cameras import read_given_cameras
from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH
from sfm_match.errors import UsageError
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions

NAMES = ["drone/a.jpg", "drone/b.jpg", "phone/c.jpg"]


def read(path: Path, text: str) -> list[GivenCamera]:
    path.write_text(text)
    return read_given_cameras(path, NAMES, "SIMPLE_RADIAL")


def test_the_first_pattern_that_fits_counts(tmp_path: Path) -> None:
    given = read(
        tmp_path / "c.yaml",
        "drone/b*: {model: PINHOLE, params: [900, 900, 640, 360]}\ndrone/*: {model: OPENCV}\n",
    )
    assert given == [
        GivenCamera("drone/b*", "PINHOLE", (900.0, 900.0, 640.0, 360.0)),
        GivenCamera("drone/*", "OPENCV", None),
    ]
    headers = {name: Header(1280, 720) for name in NAMES}
    plans = {next(iter(plan.images)): plan for plan in plan_cameras(headers, ImportOptions(), given=given)}
    assert {name: (plan.model, plan.params is not None, plan.known_focal) for name, plan in plans.items()} == {
        "drone/a.jpg": ("OPENCV", False, False),
        "drone/b.jpg": ("PINHOLE", True, True),
        "phone/c.jpg": ("SIMPLE_RADIAL", False, False),
    }


def test_images_of_one_pattern_and_size_share_a_camera() -> None:
    headers = {"a.jpg": Header(640, 480), "b.jpg": Header(640, 480), "c.jpg": Header(800, 600)}
    plans = plan_cameras(headers, ImportOptions(camera_mode="per-image"), given=[GivenCamera("*.jpg", "PINHOLE", None)])
    assert sorted(list(plan.images) for plan in plans) == [["a.jpg", "b.jpg"], ["c.jpg"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- drone", "must be lines as"),
        ("drone/*: PINHOLE", "drone/\\*: must be {model: NAME"),
        ("drone/*: {modle: PINHOLE}", "drone/\\*: must be {model: NAME"),
        ("drone/*: {model: PINHOL}", "drone/\\*: PINHOL: accepted are .*did you mean 'PINHOLE'"),
        ("drone/*: {model: PINHOLE, params: [1, 2]}", "drone/\\*: PINHOLE takes 4 numbers .*found 2"),
        ("drone/*: {model: PINHOLE, params: [1, 2, x, 4]}", "params must be a list of numbers"),
        ("drone/*: {model: PINHOLE, params: [1, 2, .nan, 4]}", "params: must be finite numbers"),
        ("drone/*: {params: abc}", "params must be a list of numbers"),
        ("tablet/*: {model: PINHOLE}", "tablet/\\*: no image has such a name"),
        ("{", "line 1: "),
        ("drone/*: {model: PINHOLE, params: [9, 0, 3, 4]}", "focal lengths must be above 0"),
        ("a: &a 1\nb: *a", "line 1: anchors"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path / "c.yaml", text)


def test_given_intrinsics_stay_and_others_are_found(rendered: Path, tmp_path: Path) -> None:
    """Half of the views with their true camera, the others without."""
    file, work = tmp_path / "c.yaml", tmp_path / "work"
    file.write_text(f"'view0[4-6]*': {{model: PINHOLE, params: [{FOCAL}, {FOCAL}, {WIDTH / 2}, {HEIGHT / 2}]}}\n")
    sfm_match.run(rendered, work, cameras=file, pairs="exhaustive", **FINISHED)
    model = sfm_match.open(work).model
    assert model.num_reg_images() == 6
    assert len(given_cameras(work / "database.db")) == 1
    assert not all_given(work / "database.db")
    cameras = {image.name: model.cameras[image.camera_id] for image in model.images.values()}
    assert list(cameras["view04.jpg"].params) == [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]
    other = cameras["view09.jpg"]
    assert other.model_name == "SIMPLE_RADIAL"
    assert other.params[0] != 1.2 * WIDTH  # refined
    assert other.params[0] == pytest.approx(FOCAL, rel=0.1)
