"""Which focal lengths in EXIF are doubted, and what takes their place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pycolmap
import pytest

from sfm_match.colmap.exif_doubt import contradictions, doubted, headers_without, without_focals
from sfm_match.images.files import Header

HEADERS = {name: Header(1000, 800, focal=1000.0) for name in "abc"} | {"d": Header(1000, 800)}
CAMERAS = {"a": 1, "b": 1, "c": 2, "d": 3}


@dataclass
class Image:
    name: str
    camera_id: int
    has_pose: bool = True


def model(focals: dict[str, float]) -> Any:
    """As much of a reconstruction as is looked at: the focal length of each image's camera."""

    @dataclass
    class Camera:
        focal: float

        def mean_focal_length(self) -> float:
            return self.focal

    @dataclass
    class Model:
        images: dict[int, Image]
        cameras: dict[int, Camera]

    images = {number: Image(name, number) for number, name in enumerate(focals)}
    return cast(Any, Model(images, {number: Camera(focal) for number, focal in enumerate(focals.values())}))


@pytest.mark.parametrize(
    ("focals", "expected"),
    [
        ({"a": 1000, "b": 1000, "c": 1100, "d": 500}, set()),
        ({"a": 1000, "b": 1000, "c": 1300}, {2}),
        ({"a": 1000, "b": 1000}, {2}),  # lost
        ({"a": 1000, "c": 1000}, set()),  # b is lost, not by the focal length: that is a's, too
        ({}, {1, 2}),
    ],
)
def test_cameras_whose_images_are_lost_or_far_from_exif_are_doubted(
    focals: dict[str, float], expected: set[int]
) -> None:
    assert doubted([model(focals)], CAMERAS, HEADERS) == expected


def test_only_what_the_model_contradicts_is_told() -> None:
    found = [model({"a": 1010, "c": 250})]
    assert contradictions(found, HEADERS, ["a", "b", "c"]) == {"c": "1,000 px in EXIF, 250 px by the matches"}
    assert contradictions(found, HEADERS, []) == {}
    assert headers_without(HEADERS, ["a"])["a"].focal is None
    assert headers_without(HEADERS, ["a"])["b"].focal == 1000


def test_the_copy_has_a_guess(tmp_path: Path) -> None:
    database = pycolmap.Database.open(str(tmp_path / "a.db"))
    for number in (1, 2):
        camera = pycolmap.Camera.create_from_model_name(number, "SIMPLE_RADIAL", 300.0, 1000, 800)
        camera.has_prior_focal_length = True
        database.write_camera(camera, use_camera_id=True)
    database.close()
    copy = pycolmap.Database.open(str(without_focals(tmp_path / "a.db", tmp_path / "b.db", [2])))
    kept, guessed = (copy.read_camera(number) for number in (1, 2))
    copy.close()
    assert (kept.params[0], kept.has_prior_focal_length) == (300, True)
    assert (guessed.params[0], guessed.has_prior_focal_length) == (1200, False)
