"""What speaks against a model is said, and nothing of a right one."""

from collections.abc import Mapping

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.plausibility import focal_ratio, gps_fit, is_far, judge, keep_earned
from sfm_match.images import Header

METRES = 111_320.0  # of a degree of latitude


@pytest.fixture
def model() -> pycolmap.Reconstruction:
    """Twelve cameras around 200 points, without noise."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 12
    options.num_points3D = 200
    return pycolmap.synthesize_dataset(options)


def headers_of(
    model: pycolmap.Reconstruction, *, focal: float | None = None, metres: Mapping[str, np.ndarray] | None = None
) -> dict[str, Header]:
    found = {}
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        location = None
        if metres is not None:
            east, north, up = metres[image.name]
            location = (north / METRES, east / METRES, float(up))  # at the equator
        found[image.name] = Header(camera.width, camera.height, focal=focal, location=location)
    return found


def centres_of(model: pycolmap.Reconstruction, scale: float) -> dict[str, np.ndarray]:
    return {image.name: scale * image.projection_center() for image in model.images.values()}


def test_nothing_speaks_against_a_right_model(model: pycolmap.Reconstruction) -> None:
    focal = next(iter(model.cameras.values())).mean_focal_length()
    headers = headers_of(model, focal=1.1 * focal, metres=centres_of(model, 50.0))
    seen = judge(model, headers)
    assert seen.odd == []
    assert seen.gps is not None and seen.gps.median < 0.5 and seen.gps.images == 12
    assert seen.parallax > 10
    assert focal_ratio(model, headers) == pytest.approx(1 / 1.1)
    assert focal_ratio(model, headers_of(model)) is None


def test_a_focal_length_far_from_exif(model: pycolmap.Reconstruction) -> None:
    focal = next(iter(model.cameras.values())).mean_focal_length()
    odd = judge(model, headers_of(model, focal=2.8 * focal)).odd
    assert odd == [f"focal length {focal:,.0f} px where EXIF says {2.8 * focal:,.0f} px (12 images)"]
    assert judge(model, headers_of(model, focal=2.8 * focal), given=True).odd == []
    assert is_far(1.16) and is_far(1 / 1.16) and not is_far(1.14) and not is_far(1 / 1.14)


def test_a_focal_length_out_of_range_without_exif(model: pycolmap.Reconstruction) -> None:
    for camera in model.cameras.values():
        camera.focal_length = 20.0 * camera.width
    assert any(phrase.startswith("focal length") for phrase in judge(model, headers_of(model)).odd)


def test_gps_that_does_not_fit(model: pycolmap.Reconstruction) -> None:
    rng = np.random.default_rng(0)
    anywhere = {name: rng.uniform(0, 200, 3) for name in centres_of(model, 1.0)}
    (odd,) = judge(model, headers_of(model, metres=anywhere)).odd
    assert "m from GPS" in odd
    near = {name: place / 20 for name, place in anywhere.items()}  # within ten metres: it says nothing
    assert judge(model, headers_of(model, metres=near)).odd == []


def test_one_gross_position_does_not_bend_the_fit(model: pycolmap.Reconstruction) -> None:
    places = centres_of(model, 50.0)
    places[min(places)] = places[min(places)] + (3000.0, 0, 0)
    fitted = gps_fit(model, headers_of(model, metres=places))
    assert fitted is not None
    assert fitted.median < 1
    assert fitted.largest > 2000
    assert not fitted.odd


def test_too_few_positions(model: pycolmap.Reconstruction) -> None:
    headers = headers_of(model, metres=centres_of(model, 50.0))
    names = sorted(headers)
    few = {
        name: header if name in names[:2] else Header(header.width, header.height) for name, header in headers.items()
    }
    assert gps_fit(model, few) is None
    assert gps_fit(model, headers_of(model, metres=dict.fromkeys(names, np.zeros(3)))) is None


def test_distortion_out_of_range(model: pycolmap.Reconstruction) -> None:
    camera = next(iter(model.cameras.values()))
    assert camera.model.name == "SIMPLE_RADIAL"
    camera.params = [*camera.params[:3], 5.0]
    (odd,) = judge(model, headers_of(model)).odd
    assert odd.startswith("distortion") and "(12 images)" in odd


def test_cameras_that_only_turn(model: pycolmap.Reconstruction) -> None:
    centre = next(iter(model.images.values())).projection_center()
    for frame in model.frames.values():
        pose = frame.rig_from_world
        frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, -pose.rotation.matrix() @ centre)
    (odd,) = judge(model, headers_of(model)).odd
    assert odd.startswith("the cameras hardly move")


def test_images_of_two_models(model: pycolmap.Reconstruction) -> None:
    (odd,) = judge(model, headers_of(model), [pycolmap.Reconstruction(model)]).odd
    assert odd.startswith("another model holds 12 of its images")


def test_an_earned_model_stays(model: pycolmap.Reconstruction) -> None:
    kept, dropped = keep_earned(model, 3)
    assert kept is not None and kept.num_reg_images() == 12
    assert dropped == {}


def observations(model: pycolmap.Reconstruction, image: int) -> list[int]:
    return [i for i, point in enumerate(model.images[image].points2D) if point.has_point3D()]


def test_an_image_that_few_points_hold_goes(model: pycolmap.Reconstruction) -> None:
    image = model.reg_image_ids()[3]
    for number in observations(model, image)[20:]:
        model.delete_observation(image, number)
    kept, dropped = keep_earned(model, 3)
    assert kept is not None and kept.num_reg_images() == 11
    assert dropped == {model.images[image].name: 20}


def test_tracks_of_length_two_are_no_model(model: pycolmap.Reconstruction) -> None:
    """As unrelated pictures give, where every pair has a geometry of its own."""
    for number in model.point3D_ids():
        while (track := model.points3D[number].track).length() > 2:
            last = track.elements[-1]
            model.delete_observation(last.image_id, last.point2D_idx)
    assert model.compute_mean_track_length() == 2
    kept, dropped = keep_earned(model, 3)
    assert kept is None
    assert len(dropped) == 12
