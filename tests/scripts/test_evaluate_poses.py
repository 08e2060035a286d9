import numpy as np
import pytest
from evaluate_poses import area_under_curve, centre_rmse, direction_angle, pair_errors, read_camera, rotation_angle


def turned(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])


POSES = {name: (turned(10 * i), np.array([i, i * i, 0.5 * i])) for i, name in enumerate("abcd")}


def test_a_similarity_costs_nothing() -> None:
    rotate, scale, shift = turned(33), 2.5, np.array([1.0, 2, 3])
    moved = {name: (r @ rotate.T, scale * rotate @ c + shift) for name, (r, c) in POSES.items()}
    np.testing.assert_allclose(pair_errors(moved, POSES), 0, atol=1e-12)
    assert centre_rmse(moved, POSES) == pytest.approx(0, abs=1e-9)


def test_a_turned_camera_costs_its_angle_in_its_pairs() -> None:
    wrong = {**POSES, "a": (turned(2) @ POSES["a"][0], POSES["a"][1])}
    errors = pair_errors(wrong, POSES)
    assert errors[:3].max() == pytest.approx(2, abs=1e-6)
    np.testing.assert_allclose(errors[3:], 0, atol=1e-12)


def test_an_absent_camera_costs_180_degrees() -> None:
    assert (pair_errors({k: v for k, v in POSES.items() if k != "a"}, POSES) == 180).sum() == 3


def test_area() -> None:
    # recall 1/4 at 0 degrees, from there in a line to 2/4 at 2.5, in a line to 3/4 at the limit (which does not count)
    errors = np.array([0.0, 2.5, 5.0, 180.0])
    assert area_under_curve(errors, 5) == pytest.approx((0.375 * 2.5 + 0.5 * 2.5) / 5)
    assert area_under_curve(np.full(4, 180.0), 5) == 0
    assert area_under_curve(np.zeros(4), 5) == pytest.approx(1)


def test_large_angles() -> None:
    for degrees in (90, 179, 180):
        assert rotation_angle(turned(degrees), turned(0)) == pytest.approx(degrees)
        assert direction_angle(turned(degrees) @ (1, 0, 0), np.array([1, 0, 0])) == pytest.approx(degrees)


def test_camera_file(tmp_path) -> None:
    rotation = turned(20)
    printed = rotation.round(6)
    rows = [[1, 0, 2], [0, 3, 4], [0, 0, 1], [0, 0, 0], *printed, [7, 8, 9], [3072, 2048]]
    path = tmp_path / "a.jpg.camera"
    path.write_text("\n".join(" ".join(map(str, row)) for row in rows))
    camera_from_world, centre = read_camera(path)
    np.testing.assert_allclose(camera_from_world @ camera_from_world.T, np.eye(3), atol=1e-12)  # though it was rounded
    np.testing.assert_allclose(camera_from_world, rotation.T, atol=1e-6)
    np.testing.assert_array_equal(centre, [7, 8, 9])
