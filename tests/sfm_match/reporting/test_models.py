"""Errors and residuals of images against pycolmap's own projection, and what is drawn against the model."""

import numpy as np
import pycolmap
import pytest
from synthetic import centres, images_of, located, noisy, scene

from sfm_match.images.files import Header
from sfm_match.reporting.models import measure
from sfm_match.reporting.packing import FULL


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    made = scene(6, 200)
    random = np.random.default_rng(0)
    for image in made.images.values():
        for point in image.points2D:
            point.xy = point.xy + random.normal(0, 0.7, 2)
    made.update_point_3d_errors()
    return made


def names_of(model: pycolmap.Reconstruction) -> list[str]:
    return [image.name for image in images_of(model)]


def test_errors_are_those_of_pycolmap(model: pycolmap.Reconstruction) -> None:
    names = ["absent.jpg", *names_of(model)]
    found = measure([model], names, {}, metric=False)
    assert found.per_image.model.tolist() == [-1, 0, 0, 0, 0, 0, 0]
    assert np.isnan(found.per_image.error[0])
    for here, image in enumerate(images_of(model), 1):
        apart = [
            np.linalg.norm(image.project_point(model.points3D[one.point3D_id].xyz) - one.xy)
            for one in image.get_observation_points2D()
        ]
        assert found.per_image.error[here] == pytest.approx(np.mean(apart), rel=1e-6)
        assert found.per_image.points[here] == len(apart)
    assert np.mean(found.point_errors) == pytest.approx(model.compute_mean_reprojection_error(), rel=1e-6)
    assert np.mean(found.track_lengths) == pytest.approx(model.compute_mean_track_length())


def test_a_shift_of_all_keypoints_is_the_residual_of_every_cell(model: pycolmap.Reconstruction) -> None:
    shifted = pycolmap.Reconstruction(model)
    for image in shifted.images.values():
        for point in image.points2D:
            point.xy = point.xy + (3.0, -2.0)
    (field,) = measure([shifted], names_of(model), {}, metric=False).fields
    assert field.observations == field.count.sum() == model.compute_num_observations()
    weighted = (field.mean * field.count[..., None]).sum(axis=(0, 1)) / field.count.sum()
    np.testing.assert_allclose(weighted, (3.0, -2.0), atol=0.1)
    full = field.count >= 30
    assert full.any()
    np.testing.assert_allclose(field.mean[full], np.tile((3.0, -2.0), (full.sum(), 1)), atol=0.7)


def test_what_is_drawn_is_the_model(model: pycolmap.Reconstruction) -> None:
    names = names_of(model)
    (drawn,) = measure([model], names, {}, metric=True).scenes
    points = np.array([point.xyz for _, point in sorted(model.points3D.items())])
    shown = drawn.points / FULL * (np.array(drawn.high) - drawn.low) + drawn.low
    assert len(shown) >= 0.97 * len(points)  # outliers are left out
    apart = np.linalg.norm(shown[:, None] - points, axis=2).min(axis=1)
    assert apart.max() < 1e-3
    np.testing.assert_allclose(drawn.centres, centres(model), atol=1e-5)
    assert drawn.up == [0, 0, 1]
    for image, axes, halves in zip(images_of(model), drawn.axes, drawn.halves, strict=True):
        corner = axes[0] * halves[0] + axes[1] * halves[1] + axes[2]  # of the frustum: the lower right one of the image
        seen = image.project_point(image.projection_center() + corner)
        camera = model.cameras[image.camera_id]
        pinhole = np.array([camera.width, camera.height])
        assert np.linalg.norm(seen - pinhole) < 0.2 * np.linalg.norm(pinhole)  # but for distortion


def test_distances_from_gps(model: pycolmap.Reconstruction) -> None:
    """One tag is 60 m off, the others err by some decimetres."""
    metres = noisy(20 * centres(model), 0.3)
    metres[2, 0] += 60
    found = measure([model], names_of(model), located(model, metres), metric=False)
    assert found.per_image.gps[2] == pytest.approx(60, abs=3)
    assert np.delete(found.per_image.gps, 2).max() < 2
    (plan,) = found.gps
    np.testing.assert_allclose(np.linalg.norm(plan.gps - plan.fitted, axis=1), found.per_image.gps)


def test_no_gps_and_no_model(model: pycolmap.Reconstruction) -> None:
    headers = {name: Header(1024, 768) for name in names_of(model)}
    assert measure([model], names_of(model), headers, metric=False).gps == []
    assert measure([], ["a.jpg"], {}, metric=False).scenes == []


def test_an_image_of_two_models_counts_for_the_first(model: pycolmap.Reconstruction) -> None:
    found = measure([model, model], names_of(model), {}, metric=False)
    assert set(found.per_image.model.tolist()) == {0}
    assert len(found.scenes) == 2


def test_a_large_model_is_measured_on_a_part(model: pycolmap.Reconstruction, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure([model], names_of(model), {}, metric=False)
    monkeypatch.setattr("sfm_match.reporting.models.OBSERVATIONS", 500)
    monkeypatch.setattr("sfm_match.reporting.models.POINTS", 50)
    part = measure([model], names_of(model), {}, metric=False)
    assert part.every == 3
    assert len(part.scenes[0].points) <= 50
    assert part.scenes[0].count == 200
    np.testing.assert_allclose(part.per_image.error, whole.per_image.error, rtol=0.3)
