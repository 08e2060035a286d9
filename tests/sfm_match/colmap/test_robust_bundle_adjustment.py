"""Wrong observations, all to one side: what bends a model, and what the last adjustment takes back."""

from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap import robust_bundle_adjustment
from sfm_match.colmap.robust_bundle_adjustment import refine_robustly, spread

NOISE = 0.4  # pixels


def scene(wrong: float, track: int, seed: int = 0) -> tuple[pycolmap.Reconstruction, pycolmap.Reconstruction]:
    """Ten cameras, points in `track` of them, noise, a share of the observations off to the right; and the truth."""
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 10
    options.num_points3D = 400
    truth = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(seed)
    for point_id, point in list(truth.points3D.items()):
        seen = [(e.image_id, e.point2D_idx) for e in point.track.elements]
        first = int(rng.integers(len(seen)))
        kept = {seen[(first + i) % len(seen)] for i in range(track)}
        for image_id, place in seen:
            if (image_id, place) not in kept:
                truth.delete_observation(image_id, place)
        assert point_id in truth.points3D
    model = pycolmap.Reconstruction(truth)
    for number, image in enumerate(model.images.values()):
        for point in image.points2D:
            point.xy = point.xy + rng.normal(0, NOISE, 2)
            if number >= 5 and rng.random() < wrong:  # half of the views, as a repeated façade would have it
                point.xy = point.xy + (rng.uniform(2, 4), 0)
    return model, truth


def centre_error(model: pycolmap.Reconstruction, truth: pycolmap.Reconstruction) -> float:
    found = pycolmap.compare_reconstructions(model, truth, alignment_error="proj_center")
    assert found is not None
    return float(np.mean([error.proj_center_error for error in found["errors"]]))


def plain(model: pycolmap.Reconstruction) -> None:
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = options.print_summary = False
    pycolmap.bundle_adjustment(model, options)


def ratio(wrong: float, track: int) -> float:
    """Error of the centres after the robust adjustment, over that before; mean of some scenes."""
    ratios = []
    for seed in range(4):
        model, truth = scene(wrong, track, seed)
        plain(model)
        ratios.append(centre_error(refine_robustly(model, refine_cameras=False), truth) / centre_error(model, truth))
    return float(np.mean(ratios))


@pytest.mark.parametrize("track", [3, 6])
def test_outliers_to_one_side_weigh_little(track: int) -> None:
    assert ratio(0.15, track) < 0.95


@pytest.mark.parametrize("track", [2, 3, 6])
def test_noise_alone_is_left_to_least_squares(track: int) -> None:
    assert ratio(0.0, track) < 1.15


@pytest.mark.parametrize("track", [3, 10])
def test_deviation_is_that_of_the_noise(track: int) -> None:
    model, _ = scene(0.0, track)
    plain(model)
    found = spread(model)
    assert found is not None
    assert found.deviation == pytest.approx(NOISE, rel=0.2)
    assert found.tail == pytest.approx(1.82, rel=0.15)


def test_given_cameras_stay_and_so_does_the_given_model() -> None:
    model, _ = scene(0.1, 6)
    before = {number: camera.params.tolist() for number, camera in model.cameras.items()}
    centres = {i: image.projection_center().tolist() for i, image in model.images.items()}
    kept = refine_robustly(model, refine_cameras=False)
    assert {number: camera.params.tolist() for number, camera in kept.cameras.items()} == before
    changed = refine_robustly(model, refine_cameras=True)
    assert {number: camera.params.tolist() for number, camera in changed.cameras.items()} != before
    assert {i: image.projection_center().tolist() for i, image in model.images.items()} == centres


def test_an_empty_model_passes() -> None:
    empty = pycolmap.Reconstruction()
    assert spread(empty) is None
    assert refine_robustly(empty, refine_cameras=True) is empty


@pytest.mark.parametrize("located", [False, True])
def test_few_iterations_at_a_time_come_to_the_same(located: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are acted on between calls of the solver; with positions the model is moved there and back each time."""
    model, truth = scene(0.15, 6)
    plain(model)
    priors = []
    for number, image in truth.images.items() if located else ():
        prior = pycolmap.PosePrior(
            position=image.projection_center(), coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN
        )
        prior.corr_data_id = image.data_id
        prior.pose_prior_id = number
        priors.append(prior)
    at_once = refine_robustly(model, refine_cameras=False, priors=priors)
    calls: list[int] = []
    solved = robust_bundle_adjustment._solved

    def counted(*arguments: Any) -> bool:
        calls.append(arguments[-1])
        return solved(*arguments)

    monkeypatch.setattr(robust_bundle_adjustment, "_solved", counted)
    monkeypatch.setattr(robust_bundle_adjustment, "_AT_ONCE", 1)
    stepwise = refine_robustly(model, refine_cameras=False, priors=priors)
    assert calls == [50, 50]
    assert centre_error(stepwise, at_once) < 0.05 * centre_error(at_once, truth)


def test_of_many_images_few_points_decide_and_all_are_adjusted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, truth = scene(0.0, 12)
    plain(model)
    whole = refine_robustly(model, refine_cameras=False)
    monkeypatch.setattr(robust_bundle_adjustment, "_WHOLE", 3)
    monkeypatch.setattr(robust_bundle_adjustment, "_DECIDING", 30)
    left_out = robust_bundle_adjustment._not_deciding(model)
    assert model.num_points3D() / 2 < len(left_out) < model.num_points3D()
    found = refine_robustly(model, refine_cameras=False)
    assert found.num_points3D() == whole.num_points3D()
    assert found.compute_num_observations() == whole.compute_num_observations()
    assert centre_error(found, truth) < 5 * centre_error(whole, truth)  # by a thirteenth of the observations
    assert found.compute_mean_reprojection_error() < 1.1 * whole.compute_mean_reprojection_error()


def test_calls_are_short_where_all_points_are_adjusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are many more than those that the poses were found by, and signals wait for a call."""
    model, _ = scene(0.0, 12)
    plain(model)
    monkeypatch.setattr(robust_bundle_adjustment, "_WHOLE", 3)
    monkeypatch.setattr(robust_bundle_adjustment, "_DECIDING", 30)
    monkeypatch.setattr(robust_bundle_adjustment, "_AT_ONCE", 4 * model.compute_num_observations())
    iterations: list[int] = []
    solved = robust_bundle_adjustment._solved

    def counted(options: Any, *arguments: Any) -> bool:
        iterations.append(options.ceres.solver_options.max_num_iterations)
        return solved(options, *arguments)

    monkeypatch.setattr(robust_bundle_adjustment, "_solved", counted)
    refine_robustly(model, refine_cameras=False)
    assert iterations[-1] == 4
    assert min(iterations[:-1]) > 10


def test_tracks_with_an_image_twice_decide_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = scene(0.0, 12)
    monkeypatch.setattr(robust_bundle_adjustment, "_WHOLE", 3)
    monkeypatch.setattr(robust_bundle_adjustment, "_DECIDING", 30)
    first, second = sorted(set(model.points3D) - set(robust_bundle_adjustment._not_deciding(model)))[:2]
    model.merge_points3D(first, second)
    assert max(model.points3D) in robust_bundle_adjustment._not_deciding(model)
