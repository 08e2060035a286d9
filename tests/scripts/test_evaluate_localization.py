"""Errors of a query's pose, whatever the frame and the scale of the model."""

import numpy as np
import pycolmap
import pytest
from evaluate_localization import errors, pose_of
from evaluate_poses import Pose

from sfm_match.commands.localize import Localization


def rotation(seed: int) -> np.ndarray:
    q = np.random.default_rng(seed).normal(size=4)
    return np.asarray(pycolmap.Rotation3d(q / np.linalg.norm(q)).matrix())


def test_a_similarity_costs_nothing_and_an_error_its_size() -> None:
    rng = np.random.default_rng(0)
    truth: dict[str, Pose] = {name: (rotation(seed), rng.normal(size=3)) for seed, name in enumerate("abcdq")}
    turn, scale, shift = rotation(9), 2.5, np.array([1.0, 2, 3])
    moved = {name: (r @ turn.T, scale * turn @ c + shift) for name, (r, c) in truth.items()}
    real, query = truth.pop("q"), moved.pop("q")
    assert errors(query, real, moved, truth) == pytest.approx((0, 0), abs=1e-6)
    quarter_degree = np.asarray(pycolmap.Rotation3d(np.radians([0, 0, 0.25])).matrix())
    wrong = quarter_degree @ query[0], query[1] + scale * np.array([0.003, 0, 0.004])
    assert errors(wrong, real, moved, truth) == pytest.approx((0.25, 5), rel=1e-6)


def test_the_pose_of_what_was_found() -> None:
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation(3)), np.array([0.5, -1, 2]))
    x, y, z, w = pose.rotation.quat
    r, centre = pose_of(Localization("q.jpg", (w, x, y, z), (0.5, -1.0, 2.0)))
    np.testing.assert_allclose(r, pose.rotation.matrix(), atol=1e-12)
    np.testing.assert_allclose(pose * centre[None], 0, atol=1e-12)
