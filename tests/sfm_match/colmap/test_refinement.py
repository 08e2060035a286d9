"""Wrong observations, all to one side: what bends a model, and what the last adjustment takes back."""

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap.refinement import deviation, refine_robustly

NOISE = 0.3  # pixels


def scene(wrong: float) -> tuple[pycolmap.Reconstruction, pycolmap.Reconstruction]:
    """Twelve cameras with noise, a share of the observations two to four pixels to the right; and the truth."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 12
    options.num_points3D = 150
    truth = pycolmap.synthesize_dataset(options)
    model = pycolmap.Reconstruction(truth)
    rng = np.random.default_rng(0)
    for number, image in enumerate(model.images.values()):
        for point in image.points2D:
            point.xy = point.xy + rng.normal(0, NOISE, 2)
            if number >= 6 and rng.random() < wrong:  # half of the views, as a repeated façade would have it
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


def test_outliers_to_one_side_weigh_little() -> None:
    model, truth = scene(wrong=0.25)
    plain(model)
    before = centre_error(model, truth)
    assert refine_robustly(model, refine_cameras=False) == pytest.approx(NOISE, rel=0.5)
    assert centre_error(model, truth) < 0.7 * before


def test_without_outliers_little_changes() -> None:
    model, truth = scene(wrong=0.0)
    plain(model)
    before = centre_error(model, truth)
    assert deviation(model) == pytest.approx(NOISE, rel=0.2)
    refine_robustly(model, refine_cameras=False)
    assert centre_error(model, truth) < 1.3 * before


def test_given_cameras_stay() -> None:
    model, _ = scene(wrong=0.1)
    before = {number: camera.params.tolist() for number, camera in model.cameras.items()}
    refine_robustly(model, refine_cameras=False)
    assert {number: camera.params.tolist() for number, camera in model.cameras.items()} == before
    refine_robustly(model, refine_cameras=True)
    assert {number: camera.params.tolist() for number, camera in model.cameras.items()} != before


def test_an_empty_model_passes() -> None:
    assert deviation(pycolmap.Reconstruction()) == 0.0
