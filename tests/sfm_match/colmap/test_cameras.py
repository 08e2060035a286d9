import pytest

from sfm_match.colmap.assigned import Assigned
from sfm_match.colmap.cameras import CameraPlan, plan_cameras
from sfm_match.errors import UsageError
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions

PHONE = Header(4000, 3000, camera="Maker Phone", focal=3200.0)
FRAME = Header(1280, 720)


def groups(headers: dict[str, Header], mode: str) -> list[list[str]]:
    return [list(plan.images) for plan in plan_cameras(headers, ImportOptions(camera_mode=mode))]


def test_auto_joins_by_exif() -> None:
    zoomed = Header(4000, 3000, camera="Maker Phone", focal=6400.0)
    turned = Header(3000, 4000, camera="Maker Phone", focal=3200.0)
    headers = {"a.jpg": PHONE, "b.jpg": zoomed, "c.jpg": PHONE, "d.jpg": turned}
    assert sorted(groups(headers, "auto")) == [["a.jpg", "c.jpg"], ["b.jpg"], ["d.jpg"]]


def test_auto_joins_frames_of_a_video_and_parts_pictures_from_the_web() -> None:
    web = {"web/a.jpg": Header(800, 600), "web/b.jpg": Header(640, 480), "web/c.jpg": Header(800, 600)}
    headers = {"film/1.png": FRAME, "film/2.png": FRAME, **web}
    found = sorted(groups(headers, "auto"))
    assert found == [["film/1.png", "film/2.png"], ["web/a.jpg"], ["web/b.jpg"], ["web/c.jpg"]]


def test_modes() -> None:
    headers = {"x/1.png": FRAME, "x/2.png": FRAME, "y/1.png": FRAME}
    assert groups(headers, "single") == [["x/1.png", "x/2.png", "y/1.png"]]
    assert groups(headers, "per-folder") == [["x/1.png", "x/2.png"], ["y/1.png"]]
    assert len(groups(headers, "per-image")) == 3


def test_sizes_must_agree() -> None:
    with pytest.raises(UsageError, match=r"a.jpg has 4000 x 3000 pixels, b.jpg has 1280 x 720; accepted"):
        groups({"a.jpg": PHONE, "b.jpg": FRAME}, "single")


def test_focal_is_known_from_exif_or_user_and_guessed_otherwise() -> None:
    (known,) = plan_cameras({"a.jpg": PHONE}, ImportOptions())
    assert (known.focal, known.known_focal) == (3200.0, True)
    (guess,) = plan_cameras({"a.jpg": FRAME}, ImportOptions())
    assert (guess.focal, guess.known_focal) == (1.2 * 1280, False)
    (given,) = plan_cameras({"a.jpg": FRAME}, ImportOptions(camera_params="900,640,360,0"))
    assert (given.params, given.known_focal) == ((900.0, 640.0, 360.0, 0.0), True)


def assigned_by(plans: list[CameraPlan]) -> Assigned:
    images = {name: number for plan in plans for name, number in plan.images.items()}
    return Assigned({plan.key: plan.number for plan in plans}, images)


def test_a_new_size_does_not_part_the_frames_of_a_video() -> None:
    before = {"b.png": FRAME, "d.png": FRAME}
    first = plan_cameras(before, ImportOptions())
    grown = before | {"a.png": Header(640, 480), "c.png": FRAME}
    assert len(plan_cameras(grown, ImportOptions())) == 4  # what a new job would say
    later = plan_cameras(grown, ImportOptions(), assigned_by(first))
    assert [(plan.number, plan.images) for plan in later] == [
        (1, {"b.png": 1, "c.png": 3, "d.png": 2}),
        (2, {"a.png": 4}),
    ]


def test_an_odd_picture_that_goes_leaves_the_others_their_cameras() -> None:
    before = {"a.png": FRAME, "b.png": FRAME, "odd.png": Header(640, 480)}
    first = plan_cameras(before, ImportOptions())
    left = plan_cameras({"a.png": FRAME, "b.png": FRAME}, ImportOptions(), assigned_by(first))
    assert [(plan.number, plan.images) for plan in left] == [(1, {"a.png": 1}), (2, {"b.png": 2})]


def test_a_picture_that_was_replaced_by_another_cameras_gets_its_camera() -> None:
    first = plan_cameras({"a.png": FRAME, "b.png": FRAME}, ImportOptions())
    later = plan_cameras({"a.png": PHONE, "b.png": FRAME}, ImportOptions(), assigned_by(first))
    assert {tuple(plan.images): plan.number for plan in later} == {("a.png",): 2, ("b.png",): 1}
    assert {tuple(plan.images): plan.width for plan in later} == {("a.png",): 4000, ("b.png",): 1280}
