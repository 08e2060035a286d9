"""Pairs that a chain of stronger pairs contradicts, in a walk round a corner between two places that look alike."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.colmap.chained_rotations import _Chains, _of_essential, turned_away

SIZE, FOCAL = 1000, 800.0
VIEWS, TURN = 10, 10.0  # along the walk; degrees from each to the next
STRONG, WEAK = 120, 40  # matches
FALSE = ("0.jpg", "9.jpg")


def rotation(degrees: float) -> np.ndarray:
    return np.asarray(cv2.Rodrigues(np.array([0, np.radians(degrees), 0]))[0])


def centre(view: int) -> np.ndarray:
    angle = np.radians(TURN * view)
    return 2.0 * np.array([np.sin(angle), 0, np.cos(angle)])


def project(view: int, points: np.ndarray) -> np.ndarray:
    seen = (points - centre(view)) @ rotation(-TURN * view).T
    return seen[:, :2] / seen[:, 2:] * FOCAL + SIZE / 2


def essential(a: int, b: int) -> np.ndarray:
    turned = rotation(-TURN * b) @ rotation(TURN * a)
    x, y, z = rotation(-TURN * b) @ (centre(a) - centre(b))
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ turned


def walk(path: Path, *, known: bool = True, false: int = WEAK, reach: int = 3) -> dict[tuple[str, str], int]:
    """Views of a walk, each with those up to `reach` further; of the first and the last, lookalike matches.

    The pair (0, 4) is a true one, whose essential matrix says something else, as of a planar scene it may.
    """
    rng = np.random.default_rng(0)
    keypoints: list[list[np.ndarray]] = [[] for _ in range(VIEWS)]
    pairs: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def seen(a: int, b: int, in_a: np.ndarray, in_b: np.ndarray, matrix: np.ndarray) -> None:
        starts = [sum(map(len, keypoints[view])) for view in (a, b)]
        for view, points in ((a, in_a), (b, in_b)):
            keypoints[view].append(points + rng.normal(0, 0.3, points.shape))
        pairs[a, b] = np.arange(len(in_a))[:, None] + starts, matrix

    def points(a: int, b: int, count: int) -> np.ndarray:
        inside = rng.uniform((-2, -2, 4), (2, 2, 9), (count, 3))
        return inside @ rotation(-TURN * (a + b) / 2) + (centre(a) + centre(b)) / 2

    for a in range(VIEWS):
        for b in range(a + 1, min(VIEWS, a + reach + 1)):
            some = points(a, b, STRONG)
            seen(a, b, project(a, some), project(b, some), essential(a, b))
    some = points(0, 4, WEAK)
    seen(0, 4, project(0, some), project(4, some), essential(0, 1) @ rotation(60))
    alike = points(0, 1, false)
    seen(0, 9, project(0, alike), project(1, alike), essential(0, 1))

    with pycolmap.Database.open(str(path)) as opened:
        camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", FOCAL, SIZE, SIZE)
        camera.has_prior_focal_length = known
        number = opened.write_camera(camera)
        for view in range(VIEWS):
            image = opened.write_image(pycolmap.Image(name=f"{view}.jpg", camera_id=number))
            opened.write_keypoints(image, np.concatenate(keypoints[view]).astype(np.float32))
        for (a, b), (matches, matrix) in pairs.items():
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
            geometry.E = matrix
            geometry.inlier_matches = matches.astype(np.uint32)
            opened.write_two_view_geometry(a + 1, b + 1, geometry)
    return {(f"{a}.jpg", f"{b}.jpg"): len(matches) for (a, b), (matches, _) in pairs.items()}


@pytest.mark.parametrize("known", [True, False])
def test_a_pair_of_lookalikes_round_a_corner_is_found(tmp_path: Path, known: bool) -> None:
    """And that of a true pair whose essential matrix is wrong is not: its matches fit the chain's rotation."""
    inliers = walk(tmp_path / "a.db", known=known)
    assert turned_away(tmp_path / "a.db", inliers) == {FALSE}


def test_only_much_stronger_pairs_judge(tmp_path: Path) -> None:
    inliers = walk(tmp_path / "a.db", false=STRONG - 20)
    assert turned_away(tmp_path / "a.db", inliers) == set()


def test_a_chain_without_triangles_proves_nothing(tmp_path: Path) -> None:
    inliers = walk(tmp_path / "a.db", reach=1)
    assert turned_away(tmp_path / "a.db", inliers) == set()


def test_the_order_of_pairs_and_names_does_not_matter(tmp_path: Path) -> None:
    turned = {(b, a): count for (a, b), count in reversed(walk(tmp_path / "a.db").items())}
    assert turned_away(tmp_path / "a.db", turned) == {FALSE[::-1]}


def test_without_essential_matrices_nothing_is_judged(tmp_path: Path) -> None:
    inliers = walk(tmp_path / "a.db")
    with pycolmap.Database.open(str(tmp_path / "a.db")) as opened:
        for a, b in ((1, 2), (1, 10)):
            geometry = opened.read_two_view_geometry(a, b)
            opened.delete_two_view_geometry(a, b)
            geometry.E = None
            opened.write_two_view_geometry(a, b, geometry)
    assert turned_away(tmp_path / "a.db", inliers) == set()


@given(st.integers(0, 10**6), st.booleans())
def test_rotations_of_essential_matrices(seed: int, opposite: bool) -> None:
    rng = np.random.default_rng(seed)
    true = np.array([cv2.Rodrigues(rng.normal(0, 0.4, 3))[0] for _ in range(5)])
    moved = rng.normal(0, 1, (5, 3))
    first = rng.uniform((-1, -1, 3), (1, 1, 6), (5, 20, 3))
    second = first @ true.swapaxes(1, 2) + moved[:, None]
    matrices = np.array(
        [np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ r for (x, y, z), r in zip(moved, true, strict=True)]
    )
    in_front = (second[..., 2] > 0.1).all(axis=1)  # a scene behind the second camera has no such images
    found = _of_essential(-matrices if opposite else matrices, first / first[..., 2:], second / second[..., 2:])
    np.testing.assert_allclose(found[in_front], true[in_front], atol=1e-6)


@given(st.integers(0, 10**6))
def test_chains_are_products_of_their_rotations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    absolute = [np.asarray(cv2.Rodrigues(rng.normal(0, 1, 3))[0]) for _ in range(12)]
    chains = _Chains()
    for number in rng.permutation(11).tolist():
        a, b = (number, number + 1) if rng.random() < 0.5 else (number + 1, number)
        chains.join(a, b, absolute[b] @ absolute[a].T)
    assert chains.between(3, 99) is None
    for _ in range(20):
        a, b = rng.integers(0, 12, 2).tolist()
        between = chains.between(a, b)
        assert between is not None
        np.testing.assert_allclose(between[0], absolute[b] @ absolute[a].T, atol=1e-9)


def test_a_whole_circle_is_a_turn_and_there_and_back_is_none() -> None:
    chains = _Chains()
    for number in range(36):
        chains.join(number, number + 1, rotation(10))
        chains.join(100 + number, 101 + number, rotation(10 if number % 2 else -10))
    for start, end, expected in ((0, 36, 360.0), (36, 0, 360.0), (9, 27, 180.0), (100, 136, 0.0)):
        between = chains.between(start, end)
        assert between is not None
        assert np.degrees(np.linalg.norm(between[1])) == pytest.approx(expected, abs=1e-6)
