"""Models come to metres, east, north and up, whatever axes the mapper chose."""

import numpy as np
import pycolmap
import pytest
from synthetic import centres, images_of, located, noisy, scene

from sfm_match.colmap.georeference import Reference, down, georeference, position_priors, positions, reference_of
from sfm_match.images.files import Header

METRES = 20.0  # a unit of the model on the ground


def turned(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """In other axes, at another scale."""
    rotation = pycolmap.Rotation3d(np.array([0.3, -0.5, 0.7, 0.4]) / np.linalg.norm([0.3, -0.5, 0.7, 0.4]))
    model.transform(pycolmap.Sim3d(0.37, rotation, np.array([5.0, -3.0, 2.0])))
    return model


def look_north(model: pycolmap.Reconstruction, places: np.ndarray) -> None:
    """Upright cameras at (N, 3) places east, north and up."""
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for image, place in zip(images_of(model), places, strict=True):
        assert image.frame is not None
        image.frame.rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(upright), -(upright @ place))


def test_a_model_comes_to_its_gps() -> None:
    model = scene()
    metres = METRES * centres(model)
    headers = located(model, metres)
    error = model.compute_mean_reprojection_error()
    reference = reference_of(headers)
    assert reference is not None
    found = georeference(turned(model), headers, reference)
    assert found is not None
    assert found.images == 10
    assert found.scale == pytest.approx(METRES / 0.37, rel=1e-6)
    assert not found.upright_by_cameras
    places = positions(headers, reference)
    np.testing.assert_allclose(centres(model), [places[image.name] for image in images_of(model)], atol=1e-5)
    np.testing.assert_allclose(
        np.diff(centres(model), axis=0), np.diff(metres, axis=0), atol=0.05
    )  # the earth is round
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() == pytest.approx(error, abs=1e-9)


def test_a_gross_error_of_gps_is_left_out() -> None:
    model = scene()
    metres = METRES * centres(model)
    wrong = metres.copy()
    wrong[3] += (300, 0, 0)
    headers = located(model, wrong)
    reference = Reference(55.7, 13.2, 40.0)
    found = georeference(turned(model), headers, reference)
    assert found is not None
    assert found.images == 9
    np.testing.assert_allclose(centres(model), metres, atol=1e-4)


def test_on_a_street_the_cameras_say_where_up_is() -> None:
    model = scene(12)
    street = np.column_stack((np.zeros(12), 10 * np.arange(12.0), np.zeros(12)))
    look_north(model, street)
    gps = street + np.random.default_rng(1).normal(0, (2, 2, 8), street.shape)  # heights err most
    headers = located(model, gps)
    found = georeference(turned(model), headers, Reference(55.7, 13.2, 40.0))
    assert found is not None
    assert found.upright_by_cameras
    ups = np.array([-image.cam_from_world().rotation.matrix()[1] for image in images_of(model)])
    assert ups[:, 2].min() > np.cos(np.radians(12))  # the line itself keeps the slope of GPS
    assert abs(ups[:, 0]).max() < 0.02


def test_headers_say_which_side_is_down() -> None:
    """A picture of orientation 6 has its bottom at the right of the stored pixels: COLMAP's gravity for it."""
    assert [down(orientation).tolist() for orientation in (1, 3, 6, 8)] == [
        [0, 1, 0],
        [0, -1, 0],
        [1, 0, 0],
        [-1, 0, 0],
    ]


@pytest.mark.parametrize("known", [0, 2])
def test_with_fewer_than_three_positions_a_model_stays(known: int) -> None:
    model = scene()
    headers = located(model, METRES * centres(model))
    some = {name: header if i < known else Header(1024, 768) for i, (name, header) in enumerate(headers.items())}
    reference = reference_of(some)
    assert (reference is None) == (known == 0)
    before = centres(model)
    assert georeference(model, some, reference or Reference(0, 0, 0)) is None
    np.testing.assert_array_equal(centres(model), before)


def test_cameras_in_one_place_say_nothing() -> None:
    model = scene()
    headers = located(model, np.zeros((10, 3)))
    assert georeference(model, headers, Reference(55.7, 13.2, 40.0)) is None


def test_photographs_without_altitude_are_at_the_reference() -> None:
    headers = {"a": Header(64, 48, location=(55.7, 13.2, None)), "b": Header(64, 48, location=(55.8, 13.2, None))}
    reference = reference_of(headers)
    assert reference is not None
    assert (round(reference.latitude, 9), reference.longitude, reference.altitude) == (55.75, 13.2, 0.0)
    found = positions(headers, reference)
    assert found["a"][1] == pytest.approx(-5566, abs=20)  # a minute of arc is a nautical mile
    assert abs(found["a"][2]) < 5  # the earth's curve


def test_priors_are_of_registered_images_with_gps() -> None:
    model = scene()
    headers = located(model, noisy(METRES * centres(model), 1.0))
    nowhere = images_of(model)[0].name
    headers[nowhere] = Header(1024, 768)
    priors = position_priors(model, headers, Reference(55.7, 13.2, 40.0))
    assert len(priors) == 9
    assert {prior.coordinate_system for prior in priors} == {pycolmap.PosePriorCoordinateSystem.CARTESIAN}
    assert not {prior.corr_data_id.id for prior in priors} & {images_of(model)[0].image_id}
