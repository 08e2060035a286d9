"""Poses of one image from synthetic points: what is found, and what is not claimed."""

import dataclasses

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.absolute_pose import CameraFrom, Correspondences, KnownCameras, Pose, find_pose, query_camera
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions

HEADER = Header(1000, 800, camera="Maker Model", focal=880.0)
ROTATION = pycolmap.Rotation3d(np.array([0.1, -0.2, 0.05, 0.97]) / np.linalg.norm([0.1, -0.2, 0.05, 0.97]))
TRUE = pycolmap.Rigid3d(ROTATION, np.array([0.3, -0.2, 4.0]))
NOTHING_KNOWN = KnownCameras(pycolmap.Reconstruction(), {})


def camera(number: int = 1) -> pycolmap.Camera:
    return pycolmap.Camera(
        camera_id=number, model="SIMPLE_RADIAL", width=1000, height=800, params=[900, 500, 400, -0.05]
    )


def correspondences(good: int, wrong: int, noise: float = 0.3) -> Correspondences:
    """As many keypoints of each kind; the first of each kind has two points, one of them wrong."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-1.5, -1.2, -1), (1.5, 1.2, 1), (good + wrong, 3))
    xy = np.asarray(camera().img_from_cam(np.asarray(TRUE * xyz))) + rng.normal(0, noise, (good + wrong, 2))
    xy[good:] = rng.uniform(0, (1000, 800), (wrong, 2))
    numbers = np.arange(good + wrong)
    twice = np.array([0, good]) if good and wrong else np.empty(0, int)
    return Correspondences(
        np.concatenate((numbers, twice)),
        np.concatenate((xy, xy[twice])),
        np.concatenate((xyz, xyz[twice] + 0.5)),
        np.concatenate((np.full(good + wrong, 0.9), np.full(len(twice), 0.4))),
    )


@pytest.mark.parametrize("header", [HEADER, dataclasses.replace(HEADER, focal=None)], ids=["EXIF", "estimated"])
def test_a_camera_that_is_refined(header: Header) -> None:
    query = query_camera(header, NOTHING_KNOWN, ImportOptions())
    before = list(query.camera.params)
    assert before[0] == (880 if header.focal else 1200)
    found = correspondences(200, 150)
    pose = find_pose(found, query, 1.0)
    assert isinstance(pose, Pose)
    assert list(query.camera.params) == before
    np.testing.assert_allclose(pose.camera.params, camera().params, rtol=0.005, atol=0.01)
    assert np.linalg.norm(pose.cam_from_world.translation - TRUE.translation) < 0.01
    assert pose.inliers[:200].all()
    assert pose.inliers[200:].sum() < 5
    assert found.count(pose.inliers) == pose.inliers.sum()
    assert pose.error == pytest.approx(0.3 * np.sqrt(np.pi / 2), rel=0.15)  # the mean of a Rayleigh distribution


def test_intrinsics_that_are_given() -> None:
    given = ImportOptions(camera_params="900,500,400,-0.05")
    query = query_camera(HEADER, NOTHING_KNOWN, given)
    assert query.source is CameraFrom.GIVEN
    pose = find_pose(correspondences(100, 300), query, 1.0)
    assert isinstance(pose, Pose)
    assert list(pose.camera.params) == [900, 500, 400, -0.05]
    assert np.degrees(pose.cam_from_world.rotation.angle_to(TRUE.rotation)) < 0.05


def test_errors_are_in_pixels_of_the_network() -> None:
    """Keypoints that were found in a picture of a quarter of the size err four times as much."""
    query = query_camera(HEADER, NOTHING_KNOWN, ImportOptions(camera_params="900,500,400,-0.05"))
    blurred = correspondences(200, 100, noise=4.0)
    fine, coarse = find_pose(blurred, query, 1.0), find_pose(blurred, query, 4.0)
    assert isinstance(coarse, Pose)
    assert blurred.count(coarse.inliers) > 190
    assert not isinstance(fine, Pose) or blurred.count(fine.inliers) < 120


@pytest.mark.parametrize(
    ("good", "wrong", "reason"),
    [
        (0, 0, "0 keypoints match points of the model, a pose needs 30"),
        (29, 0, "29 keypoints match points of the model, a pose needs 30"),
        (29, 200, " of 229 keypoints that match points of the model agree on a pose, it needs 30"),
        (0, 300, " of 300 keypoints that match points of the model agree on a pose, it needs 30"),
    ],
)
def test_what_is_not_claimed(good: int, wrong: int, reason: str) -> None:
    query = query_camera(HEADER, NOTHING_KNOWN, ImportOptions(camera_params="900,500,400,-0.05"))
    assert reason in str(find_pose(correspondences(good, wrong), query, 1.0))


def test_chance_among_many() -> None:
    """30 keypoints of thousands are near some place of their own: an inlier of 60 pixels is nothing in 1000."""
    query = query_camera(HEADER, NOTHING_KNOWN, ImportOptions(camera_params="900,500,400,-0.05"))
    assert "no better than chance" in str(find_pose(correspondences(0, 3000), query, 15.0))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (dataclasses.replace(HEADER, focal=1200.0), "px where EXIF says 1,200 px; --camera-params"),
        (dataclasses.replace(HEADER, focal=700.0), "px where EXIF says 700 px; --camera-params"),
    ],
)
def test_a_focal_length_that_exif_contradicts(header: Header, reason: str) -> None:
    query = query_camera(header, NOTHING_KNOWN, ImportOptions())
    assert reason in str(find_pose(correspondences(300, 0), query, 4.0))


def model_of(cameras: dict[str, int]) -> pycolmap.Reconstruction:
    """Images by name, each with a pose and the camera of a number."""
    model = pycolmap.Reconstruction()
    for number in sorted(set(cameras.values())):
        model.add_camera_with_trivial_rig(camera(number))
    for image, (name, number) in enumerate(cameras.items(), 1):
        one = pycolmap.Image(name=name, camera_id=number, image_id=image)
        model.add_image_with_trivial_frame(one, TRUE)
    return model


def test_cameras_that_the_model_knows() -> None:
    plain = Header(640, 480)
    cameras = {"a.jpg": 1, "b.jpg": 2, "frame1.jpg": 3, "frame2.jpg": 3, "alone.jpg": 4, "web1.jpg": 5, "web2.jpg": 6}
    headers = {
        "a.jpg": HEADER,
        "b.jpg": dataclasses.replace(HEADER, focal=950.0),
        "frame1.jpg": plain,
        "frame2.jpg": plain,
        "alone.jpg": Header(800, 600),
        "web1.jpg": Header(1024, 768),
        "web2.jpg": Header(1024, 768),
    }
    known = KnownCameras(model_of(cameras), headers)

    def number(header: Header) -> int | None:
        found = known.of(header)
        return None if found is None else int(found.camera_id)

    assert number(HEADER) == 1
    assert number(dataclasses.replace(HEADER, location=(1.0, 2.0, None))) == 1
    assert number(dataclasses.replace(HEADER, focal=950.0)) == 2
    assert number(dataclasses.replace(HEADER, width=800, height=1000)) is None
    assert number(dataclasses.replace(HEADER, camera="Other")) is None
    assert number(plain) == 3
    assert number(Header(800, 600)) is None  # one image without EXIF says nothing of another of its size
    assert number(Header(1024, 768)) is None  # nor do two of different cameras
    query = query_camera(plain, known, ImportOptions())
    assert (query.source, query.camera.camera_id) == (CameraFrom.MODEL, 3)
    assert query_camera(plain, known, ImportOptions(camera_params="1,2,3,4")).source is CameraFrom.GIVEN
