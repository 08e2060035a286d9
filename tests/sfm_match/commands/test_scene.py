"""The renderer against pinhole projection: a marker painted on a plane appears where its 3D point projects."""

import numpy as np

from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH, Rectangle, cameras, render


def test_cameras_are_rotations_that_look_at_the_scene() -> None:
    for view in cameras(16):
        np.testing.assert_allclose(view.rotation @ view.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view.rotation) > 0
        assert (view.rotation @ (np.array([0.1, 0.4, 0.6]) - view.centre))[2] > 0


def test_marker_appears_where_it_projects() -> None:
    texture = np.zeros((400, 400, 3), np.uint8)
    texture[196:204, 96:104] = 255  # centred at texel (100, 200) of 400: a quarter along u, half along v
    plane = Rectangle(np.array([-1.0, 0.5, 2.0]), np.array([2.0, 0, 0]), np.array([0, 0, -2.0]), texture)
    point = plane.corner + 0.25 * plane.u + 0.5 * plane.v
    for view in cameras(16)[3:9]:
        x, y, z = view.rotation @ (point - view.centre)
        expected = np.array([FOCAL * x / z + WIDTH / 2, FOCAL * y / z + HEIGHT / 2])
        bright = np.clip(render(view, [plane])[..., 0].astype(float) - 128, 0, None)
        rows, columns = np.nonzero(bright)
        weight = bright[rows, columns]
        found = np.array([(columns + 0.5) @ weight, (rows + 0.5) @ weight]) / weight.sum()
        np.testing.assert_allclose(found, expected, atol=0.15)


def test_nearer_planes_hide() -> None:
    view = cameras(16)[8]
    forward, right, down = view.rotation[2], view.rotation[0], view.rotation[1]

    def wall(distance: float, shade: int) -> Rectangle:
        corner = view.centre + forward * distance - (right + down) * 5
        return Rectangle(corner, right * 10, down * 10, np.full((8, 8, 3), shade, np.uint8))

    assert (render(view, [wall(3, 50), wall(2, 200)]) == 200).all()
    assert (render(view, [wall(2, 200), wall(3, 50)]) == 200).all()
