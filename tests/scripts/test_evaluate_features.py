"""The measures of the feature comparison, on cases whose answer is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluate_features import table
from evaluation.homographies import Sequence, apply, score_pair, score_rotation, score_sequence
from evaluation.methods import Described, Nano, Orb, Sift, mutual_nearest

SIZE = ((200, 100), (200, 100))
SHIFT = np.array([[1, 0, 10.0], [0, 1, 0], [0, 0, 1]])


def features(points: np.ndarray) -> Described:
    return Described(points.astype(np.float32), np.eye(len(points), 64, dtype=np.float32))


def test_perfect_features_score_one_and_an_offset_costs_its_share() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(20, 80, (50, 2)) * (2, 1)
    method = Nano(100, 100)
    perfect = score_pair(features(points), features(points + (10, 0)), SHIFT, SIZE, method)
    assert perfect["mma@1"] == perfect["nn_mma@1"] == perfect["repeatability@1"] == 1.0
    moved = points + (10, 0)
    moved[:25] += (0, 2)
    half = score_pair(features(points), features(moved), SHIFT, SIZE, method)
    assert half["mma@1"] == 0.5
    assert half["mma@3"] == 1.0


def test_repeatability_counts_what_both_images_see() -> None:
    inside, outside = np.array([[50.0, 50]]), np.array([[195.0, 50]])  # the shift takes the second out of the image
    both = features(np.concatenate((inside, outside)))
    other = features(inside + (10, 0))
    assert score_pair(both, other, SHIFT, SIZE, Nano(100, 100))["repeatability@1"] == 1.0


def test_sift_is_matched_as_colmap_does() -> None:
    """Nearest below 0.8 of the second nearest, below 0.7 rad, and the other way round, too."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 128))
    b = np.concatenate((a[:40] + rng.normal(0, 0.4, (40, 128)), rng.normal(size=(30, 128))))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    angle = np.arccos(a @ b.T)
    expected = set()
    for i in range(len(a)):
        first, second = np.argsort(angle[i])[:2]
        back = np.argsort(angle[:, first])[:2]
        ratios = angle[i, first] < 0.8 * angle[i, second] and angle[i, first] < 0.8 * angle[back[1], first]
        if back[0] == i and angle[i, first] <= 0.7 and ratios:
            expected.add((i, int(first)))
    none = np.zeros((0, 2), np.float32)
    given = (Described(none, x.astype(np.float32)) for x in (a, b))
    assert {tuple(row) for row in Sift(1024, 100).match(*given).tolist()} == expected
    assert len(expected) > 20


def test_mutual_nearest() -> None:
    similarity = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    assert mutual_nearest(similarity).tolist() == [[0, 0]]


def test_homographies_are_of_pixels_with_centres_at_one_half(tmp_path: Path) -> None:
    """Doubling with integer centres maps pixel 0 to pixel 0: 0.5 to 0.5, 1.5 to 2.5."""
    (tmp_path / "H1to2p").write_text("2 0 0\n0 2 0\n0 0 1\n")
    found = apply(Sequence(tmp_path).homography(2), np.array([[0.5, 0.5], [1.5, 1.5]], np.float32))
    np.testing.assert_allclose(found, [[0.5, 0.5], [2.5, 2.5]])


@pytest.mark.parametrize("method", [Sift(1024, 500), Orb(1024, 500), Nano(320, 500)])
def test_every_method_sees_a_shifted_picture_again(method: Sift | Orb | Nano, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (50, 70, 3), np.uint8)
    picture = cv2.resize(small, (360, 240), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "img1.png"), picture[:, :320])
    cv2.imwrite(str(tmp_path / "img2.png"), picture[:, 16:336])
    (tmp_path / "H1to2p").write_text("1 0 -16\n0 1 0\n0 0 1\n")
    figures = score_sequence(Sequence(tmp_path), method)
    assert figures["mma@1"] > 0.6
    assert figures["mma_matches"] > 50
    lines = table({"shift": {method.name: figures}}, ("mma@1", "absent"), "sequence")
    assert lines[2] == f"| shift | {method.name} | {figures['mma@1']} | – |"


def test_rotation_turns_the_truth_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (40, 50, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.resize(small, (500, 400), interpolation=cv2.INTER_CUBIC))
    for angle in (0.0, 37.0, 90.0):
        figures = score_rotation([tmp_path / "a.png"], Sift(1024, 500), angle)
        assert figures["mma@3"] > 0.9
        assert figures["mma_matches"] > 30
