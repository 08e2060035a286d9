import pytest

from sfm_match.colmap.cameras import plan_cameras
from sfm_match.errors import UsageError
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions

PHONE = Header(4000, 3000, camera="Maker Phone", focal=3200.0)
FRAME = Header(1280, 720)


def groups(headers: dict[str, Header], mode: str) -> list[list[str]]:
    return [plan.images for plan in plan_cameras(headers, ImportOptions(camera_mode=mode))]


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
