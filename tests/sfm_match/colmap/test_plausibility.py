"""Right models have nothing odd; each way of being wrong is said, or its images are taken out."""

import json
from dataclasses import asdict

import numpy as np
import pycolmap
import pytest
from synthetic import FOCAL, centres, images_of, located, move, noisy, scene

from sfm_match.colmap.plausibility import Plausibility, judge, keep_earned, unearned
from sfm_match.images.files import Header

METRES = 20.0  # a unit of the model on the ground


def distorted(*params: float) -> pycolmap.Reconstruction:
    """Of cameras with (focal length, x and y of the principal point, distortion...)."""
    model = {4: pycolmap.CameraModelId.SIMPLE_RADIAL, 5: pycolmap.CameraModelId.RADIAL}[len(params)]
    harmless = [FOCAL, 512, 384, 0, 0][: len(params)]  # the scene itself is made with
    found = scene(points=50, camera_model_id=model, camera_params=harmless)
    next(iter(found.cameras.values())).params = params
    return found


def headers_of(model: pycolmap.Reconstruction, focal: float | None = FOCAL) -> dict[str, Header]:
    return {image.name: Header(1024, 768, focal=focal) for image in images_of(model)}


def keep_observations(model: pycolmap.Reconstruction, wanted: dict[int, set[int]]) -> None:
    """Leaves each point to the images given, by their place among the names."""
    ids = [image.image_id for image in images_of(model)]
    for number, places in wanted.items():
        keep = {ids[place] for place in places}
        seen = [(element.image_id, element.point2D_idx) for element in model.points3D[number].track.elements]
        for image, place in seen:
            if image not in keep:
                model.delete_observation(image, place)


def test_a_right_model_has_nothing_odd() -> None:
    model = scene()
    found = judge(model, located(model, noisy(centres(model) * METRES, 3.0)))
    assert found.odd == ()
    assert (found.images, found.points, found.track_length, found.points_in_three_images) == (10, 300, 10.0, 1.0)
    assert (found.focal_images, found.focal_deviation) == (10, 0.0)
    assert found.distortion == pytest.approx(0.05 * (512**2 + 384**2) / FOCAL**2, abs=1e-4)
    assert found.gps_images == 10
    assert found.gps_residual_median_m is not None
    assert 0.5 < found.gps_residual_median_m < 6
    assert found.gps_extent_m == pytest.approx(np.ptp(centres(model)[:, :2] * METRES, axis=0), abs=15)
    assert found.triangulation_angle_deg is not None
    assert found.triangulation_angle_deg > 20
    assert json.loads(json.dumps(asdict(found)))["odd"] == []


def test_without_exif_and_without_points() -> None:
    model = scene(points=0)
    found = judge(model, {})
    assert found.odd == ()
    assert (found.focal_deviation, found.gps_residual_median_m, found.triangulation_angle_deg) == (None, None, None)
    empty = judge(pycolmap.Reconstruction(), {})
    assert (empty.odd, empty.images, empty.distortion) == ((), 0, None)


@pytest.mark.parametrize(
    ("exif", "said"),
    [
        (FOCAL / 1.14, ()),
        (FOCAL / 0.86, ()),
        (FOCAL / 1.2, ("focal length 1,280 px where EXIF says 1,067 px (10 images off)",)),
        (3 * FOCAL, ("focal length 1,280 px where EXIF says 3,840 px (10 images off)",)),
    ],
)
def test_focal_length_against_exif(exif: float, said: tuple[str, ...]) -> None:
    model = scene(points=50)
    assert judge(model, headers_of(model, exif)).odd == said
    assert judge(model, headers_of(model, exif), known_intrinsics=True).odd == ()


@pytest.mark.parametrize(("focal", "is_odd"), [(250.0, True), (320.0, False), (10_000.0, False), (10_500.0, True)])
def test_focal_length_without_exif(focal: float, is_odd: bool) -> None:
    model = scene(points=50)
    next(iter(model.cameras.values())).params = [focal, 512, 384, 0]
    said = (f"focal length {focal:,.0f} px for a long side of 1,024 px (10 images)",) if is_odd else ()
    assert judge(model, headers_of(model, None)).odd == said


@pytest.mark.parametrize(
    ("distortion", "said"),
    [
        ((0.2,), None),
        ((2.1,), "distortion moves an image corner by 53% of its distance from the centre"),
        ((-1.2,), None),  # folds beyond the corner
        ((-1.6,), "distortion folds the image over before its corner (1 of 1 cameras)"),
        ((-1.6, 3.0), None),  # the second coefficient unfolds it
    ],
)
def test_distortion(distortion: tuple[float, ...], said: str | None) -> None:
    model = distorted(FOCAL, 512, 384, *distortion)
    found = judge(model, headers_of(model))
    assert found.odd == ((said,) if said else ())
    assert judge(model, headers_of(model), known_intrinsics=True).odd == ()


def test_gps_that_does_not_fit() -> None:
    model = scene(20)
    shuffled = np.random.default_rng(1).permutation(centres(model) * METRES)
    found = judge(model, located(model, shuffled))
    assert len(found.odd) == 1
    assert found.odd[0].startswith(f"camera centres {found.gps_residual_median_m:.0f} m from GPS after a similarity")
    few = dict(list(located(model, shuffled).items())[:5])
    found = judge(model, few | dict.fromkeys(list(headers_of(model))[5:], Header(1024, 768, focal=FOCAL)))
    assert found.gps_images == 5
    assert found.odd == ()  # too few to tell which is wrong


@pytest.mark.parametrize("far", [1e3, 5e5])
def test_gross_gps_errors_among_good_ones_are_not_the_models(far: float) -> None:
    model = scene(20)
    metres = noisy(centres(model) * METRES, 3.0)
    metres[:3] += (far, -far, 0)
    found = judge(model, located(model, metres))
    assert found.odd == ()
    assert found.gps_far_images == 3
    assert found.gps_residual_median_m is not None
    assert found.gps_residual_median_m < 6
    assert found.gps_residual_max_m is not None
    assert found.gps_residual_max_m > far
    assert found.gps_extent_m is not None
    assert max(found.gps_extent_m) < 500


def on_a_street(spacing: np.ndarray, images: int = 20) -> tuple[pycolmap.Reconstruction, np.ndarray]:
    """A model whose cameras stand on a line, and their places."""
    model = scene(images, points=50)
    places = np.cumsum(spacing)[:, None] * (1.0, 0.5, 0.0)
    move(model, places)
    return model, places


@pytest.mark.parametrize("deviation", [0.0, 8.0])
def test_a_straight_track_is_measured_and_not_judged_by_the_errors_of_gps(deviation: float) -> None:
    model, places = on_a_street(np.full(20, 1.0))
    found = judge(model, located(model, noisy(places * 4.0, deviation)))
    assert not [said for said in found.odd if "GPS" in said]
    assert found.gps_residual_median_m == pytest.approx(1.18 * deviation, rel=0.5, abs=0.1)


def test_a_street_of_two_scales_is_odd() -> None:
    model, _ = on_a_street(np.repeat([3.0, 1.0], [7, 13]))
    metres = noisy(np.arange(20)[:, None] * (8.0, 4.0, 0.0), 2.0)
    found = judge(model, located(model, metres))
    (said,) = [said for said in found.odd if "GPS" in said]
    assert said.startswith(f"{found.gps_far_images} of 20 images up to {found.gps_residual_max_m:.0f} m from GPS")


def test_three_positions_in_one_place() -> None:
    model = scene(3)
    found = judge(model, located(model, np.zeros((3, 3))))
    assert found.gps_residual_median_m == pytest.approx(0.0, abs=0.01)
    assert found.odd == ()


def test_cameras_that_only_rotate() -> None:
    model = scene()
    move(model, np.repeat(centres(model)[:1], 10, axis=0))
    found = judge(model, headers_of(model))
    assert found.rotation_pairs == 1.0
    (said,) = found.odd
    assert said.startswith("cameras hardly move: points are seen under 0.0 degrees, 100% of the image pairs")


@pytest.mark.parametrize(("degrees", "is_odd"), [(1.2, True), (2.0, False)])
def test_the_largest_angle_of_the_typical_point_counts(degrees: float, is_odd: bool) -> None:
    model = scene(3)
    middle = np.median([point.xyz for point in model.points3D.values()], axis=0)
    step = np.radians(degrees) / 2
    move(model, middle + [(100 * np.sin(a), 0, -100 * np.cos(a)) for a in (-step, 0, step)])
    found = judge(model, headers_of(model))
    assert found.triangulation_angle_deg == pytest.approx(degrees, rel=0.05)
    assert found.rotation_pairs == 0.0
    assert bool(found.odd) is is_odd


@pytest.mark.parametrize(("there", "is_odd"), [(2, True), (5, False)])
def test_two_tripods_of_many_images(there: int, is_odd: bool) -> None:
    model = scene(10)
    move(model, np.repeat(centres(model)[:2], [10 - there, there], axis=0))
    found = judge(model, headers_of(model))
    assert found.triangulation_angle_deg is not None
    assert found.triangulation_angle_deg > 5
    assert bool(found.odd) is is_odd


def test_images_in_two_models() -> None:
    model, other = scene(), scene(4)
    first = images_of(other)[0]
    other.deregister_frame(first.frame_id)
    found = judge(model, headers_of(model), others=[other])
    assert found.images_in_other_models == 3
    assert found.odd == (f"3 images also in another model, e.g. {images_of(other)[1].name}",)


def facts(model: pycolmap.Reconstruction) -> Plausibility:
    return judge(model, headers_of(model))


def test_images_of_few_points_are_taken_out() -> None:
    model = scene(6, points=200)
    numbers = sorted(model.points3D)
    everywhere, all_but_last = set(range(6)), set(range(5))
    keep_observations(model, {n: everywhere if i < 29 else all_but_last for i, n in enumerate(numbers)})
    last = images_of(model)[-1]
    assert unearned(model) == {last.frame_id: 29}
    kept = keep_earned(model, 3)
    assert kept.dropped == {last.name: 29}
    assert kept.model is not None
    assert kept.model.num_reg_images() == 5
    assert (facts(kept.model).images, facts(kept.model).track_length) == (5, 5.0)
    assert model.num_reg_images() == 6  # stays as it is
    assert keep_earned(model, 6).model is None


def test_enough_points_are_enough() -> None:
    model = scene(6, points=200)
    numbers = sorted(model.points3D)
    keep_observations(model, {n: set(range(6 if i < 30 else 5)) for i, n in enumerate(numbers)})
    kept = keep_earned(model, 3)
    assert kept.model is model
    assert kept.dropped == {}


@pytest.mark.parametrize(("shared", "is_kept"), [(14, False), (15, True)])
def test_points_of_two_images_do_not_hold_a_third(shared: int, is_kept: bool) -> None:
    model = scene(6, points=300)
    numbers = sorted(model.points3D)
    wanted = {n: set(range(5)) for n in numbers}
    wanted |= {n: {0, 5} for n in numbers[:100]} | {n: {0, 1, 5} for n in numbers[100 : 100 + shared]}
    keep_observations(model, wanted)
    kept = keep_earned(model, 3)
    assert kept.dropped == ({} if is_kept else {images_of(model)[5].name: 100 + shared})


def test_dropping_one_image_may_take_another_along() -> None:
    model = scene(6, points=300)
    numbers = sorted(model.points3D)
    # image 4 shares points of three images with image 5 alone, which has too few
    wanted = {n: set(range(4)) for n in numbers}
    wanted |= {n: {0, 4, 5} for n in numbers[:25]} | {n: {0, 4} for n in numbers[25:100]}
    keep_observations(model, wanted)
    names = [image.name for image in images_of(model)]
    kept = keep_earned(model, 3)
    assert kept.dropped == {names[5]: 25, names[4]: 100}
    assert kept.model is not None
    assert kept.model.num_reg_images() == 4


def test_a_model_of_two_view_points_is_none() -> None:
    model = scene(6, points=600)
    keep_observations(model, {n: {i % 5, i % 5 + 1} for i, n in enumerate(sorted(model.points3D))})
    assert facts(model).points_in_three_images == 0.0
    kept = keep_earned(model, 2)
    assert kept.model is not None  # two of the six, whose points need no third image
    assert kept.model.num_reg_images() == 2
    assert keep_earned(model, 3).model is None


def test_hardly_any_point_in_three_images_is_none() -> None:
    model = scene(4, points=900)
    numbers = sorted(model.points3D)
    wanted = {n: {i % 3, i % 3 + 1} for i, n in enumerate(numbers)}
    keep_observations(model, wanted | {n: {0, 1, 2, 3} for n in numbers[:20]})
    assert unearned(model) == {}
    kept = keep_earned(model, 3)
    assert (kept.model, kept.dropped) == (None, {})


def test_two_images_need_no_third() -> None:
    model = scene(2, points=30)
    assert keep_earned(model, 2).model is model
    assert keep_earned(scene(2, points=29), 2).model is None
