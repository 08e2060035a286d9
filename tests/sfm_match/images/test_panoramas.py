"""Faces of panoramas: where their pixels come from, and that they meet at their edges."""

import numpy as np
import pytest

from sfm_match.images.panoramas import FACES, Cube, cut, is_panorama

CUBE = Cube(1024)


def test_the_shape_tells() -> None:
    assert is_panorama(5760, 2880)
    assert not is_panorama(1920, 1080)


def test_a_face_has_the_scale_of_its_panorama() -> None:
    assert CUBE.side == 326
    middle = CUBE.side // 2
    x, _ = CUBE.lookup("front")
    assert x[middle, middle + 1] - x[middle, middle] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("face", "x", "y"),
    [
        ("front", 0.5, 0.5),
        ("right", 0.75, 0.5),
        ("left", 0.25, 0.5),
        ("up", None, 0.0),
        ("down", None, 1.0),
    ],
)
def test_where_faces_look(face: str, x: float | None, y: float) -> None:
    """The middle of a face in the panorama, as shares of its width and height."""
    middle = CUBE.side // 2
    around = np.ix_((middle - 1, middle), (middle - 1, middle))  # four pixels
    across, down = (places[around] + 0.5 for places in CUBE.lookup(face))
    if x is not None:
        assert across.mean() / CUBE.width == pytest.approx(x, abs=1e-6)
    assert down.mean() / (CUBE.width / 2) == pytest.approx(y, abs=0.003)


def test_the_back_is_where_the_edges_meet() -> None:
    x, _ = CUBE.lookup("back")
    middle = CUBE.side // 2
    assert sorted(x[middle, middle - 1 : middle + 1].round(1)) == [-0.0, 1023.0]


def test_axes_are_rotations_and_faces_meet() -> None:
    for axes in FACES.values():
        assert np.linalg.det(np.array(axes)) == pytest.approx(1)
    ramp = np.zeros((512, 1024, 1), np.uint8)  # brightness by height: the same on both sides of an edge
    ramp[..., 0] = np.linspace(0, 255, 512)[:, None]
    faces = {face: cut(ramp, CUBE.lookup(face)).reshape(CUBE.side, CUBE.side).astype(int) for face in FACES}
    for one, next_one in (("front", "right"), ("right", "back"), ("back", "left"), ("left", "front")):
        assert np.abs(faces[one][:, -1] - faces[next_one][:, 0]).max() <= 2
    assert np.abs(faces["up"][-1] - faces["front"][0]).max() <= 2
    assert np.abs(faces["down"][0] - faces["front"][-1]).max() <= 2
