"""The rendered city: its pictures show what its poses say; and how models of it are judged."""

import json
from pathlib import Path
from typing import Any

import city_block
import numpy as np
import pycolmap
import pytest
from city_block import judged, poses_of, render_missing, table
from evaluation.city import CELL, FOCAL, HEIGHT, WIDTH, City, Plane, city, intrinsics, plan, render, walk
from evaluation.city_points import points_database

from sfm_match.commands.scene import View

AHEAD = View("view00000.jpg", np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.array([0.3, -6.0, 1.5]))  # along y


def board(distance: float, grey: int, dot: bool, width: float = 6.0) -> Plane:
    """A wall across the view, 4 m high; with a white dot at a quarter of both edges."""
    texture = np.full((400, int(100 * width), 3), grey, np.uint8)
    if dot:
        x = int(25 * width)
        texture[95:105, x - 5 : x + 5] = 255
    edges = np.array([width, 0, 0]), np.array([0, 0, -4.0])
    return Plane(np.array([-width / 2, distance, 3.0]), *edges, [texture], 100)


def test_a_point_is_where_its_camera_sees_it() -> None:
    image = render(AHEAD, City.of([board(2.0, 0, True)])).astype(float).mean(axis=2)
    dot = np.where(image > 60, image, 0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    seen = intrinsics() @ AHEAD.rotation @ (np.array([-1.5, 2.0, 2.0]) - AHEAD.centre)
    inside = np.hypot(x - seen[0] / seen[2], y - seen[1] / seen[2]) < 15
    weights = dot * inside
    assert weights.sum() > 0
    found = np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()
    assert np.abs(found - seen[:2] / seen[2]).max() < 0.1


def test_what_is_near_hides_what_is_far_in_any_order() -> None:
    far, near = board(3.0, 40, False), board(0.0, 200, False, width=1.0)
    for planes in ([far, near], [near, far]):
        image = render(AHEAD, City.of(planes))
        assert abs(float(image[HEIGHT // 2, WIDTH // 2 - 20].mean()) - 200) < 10
        assert abs(float(image[HEIGHT // 2, WIDTH // 2 - 150].mean()) - 40) < 10


def test_a_wall_shows_from_its_front_alone() -> None:
    behind = View("view00000.jpg", np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]]), np.array([0.3, 10.0, 1.5]))
    walls = City.of([board(2.0, 0, False)])
    assert render(AHEAD, walls).min() < 20
    assert render(behind, walls).min() > 60  # the sky


@pytest.mark.parametrize("views", [300, 1000])
def test_a_walk_is_in_the_street_at_equal_steps(views: int) -> None:
    ground = plan(views)
    cameras = walk(ground, views)
    assert [view.name for view in cameras] == sorted({view.name for view in cameras})
    centres = np.array([view.centre for view in cameras])
    steps = np.linalg.norm(np.diff(centres[:, :2], axis=0), axis=1)
    lap = int(steps.argmax())  # where it crosses the street
    assert 0.45 < np.delete(steps, lap).min() < np.delete(steps, lap).max() < 0.75
    assert all(ground.heights[int(x // CELL), int(y // CELL)] == 0 for x, y, _ in centres)
    for view in cameras:
        assert np.allclose(view.rotation @ view.rotation.T, np.eye(3))
        assert np.isclose(np.linalg.det(view.rotation), 1)


def test_views_are_made_once_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = walk(plan(300), 300)[:1]
    monkeypatch.setattr(city_block, "walk", lambda *_: first)
    monkeypatch.setattr(city_block, "city", lambda *_: City.of([board(2.0, 0, True)]))
    assert list(poses_of(300)) == ["view00000.jpg"]
    render_missing(300, tmp_path)
    picture = tmp_path / "images" / "view00000.jpg"
    made = picture.read_bytes()
    picture.unlink()
    render_missing(300, tmp_path)
    assert picture.read_bytes() == made
    monkeypatch.setattr(city_block, "city", lambda *_: pytest.fail("it is there already"))
    render_missing(300, tmp_path)


def test_points_are_seen_where_nothing_hides_them(tmp_path: Path) -> None:
    """Matches are of one point each, and fit the true geometry; of the far wall only what the near one leaves."""
    scene = City.of([board(3.0, 0, False), board(0.0, 0, False, width=2.0)])
    aside = View("view00001.jpg", AHEAD.rotation, AHEAD.centre + (0.4, 0.1, 0))
    assert points_database(tmp_path / "a.db", [AHEAD, aside], scene) == 1
    with pycolmap.Database.open(str(tmp_path / "a.db")) as opened:
        first, second = (opened.read_keypoints(number)[:, :2] for number in (1, 2))
        geometry = opened.read_two_view_geometry(1, 2)
    assert len(first) > 100
    matches = geometry.inlier_matches
    assert 50 < len(matches) == len(set(matches[:, 0])) == len(set(matches[:, 1]))
    k = np.linalg.inv(intrinsics())
    assert geometry.E is not None
    a, b = (
        np.column_stack((side, np.ones(len(side)))).astype(np.float64) @ k.T
        for side in (first[matches[:, 0]], second[matches[:, 1]])
    )
    lines = a @ np.asarray(geometry.E, np.float64).T
    off = np.abs((b * lines).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1) * FOCAL
    assert 0.1 < np.median(off) < 1.0 and off.max() < 4
    alone = City.of([board(0.0, 0, False, width=2.0)])
    points_database(tmp_path / "b.db", [AHEAD, aside], alone)
    with pycolmap.Database.open(str(tmp_path / "b.db")) as opened:
        near = opened.read_keypoints(1)[:, :2]
    inside = [side[np.abs(side[:, 0] - (WIDTH / 2 - 30)) < 90] for side in (first, near)]
    assert 0.6 < len(inside[0]) / len(inside[1]) < 1.6  # with those of the far wall, too, 2.5


def test_no_two_houses_have_the_same_front() -> None:
    fronts = [plane.scales[0] for plane in city(plan(300)).planes if len(plane.scales[0]) > 6 * 96]
    assert len(fronts) > 10
    assert len({front.tobytes() for front in fronts}) == len(fronts)


def test_errors_are_those_after_a_similarity(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 8, 50
    model = pycolmap.synthesize_dataset(options)
    truth = {
        image.name: (image.cam_from_world().rotation.matrix(), image.projection_center())
        for image in model.images.values()
    }
    name = min(truth)
    turned = pycolmap.Rotation3d(np.array([0, 0, np.radians(2)])).matrix()
    truth[name] = turned @ truth[name][0], truth[name][1]
    turn = pycolmap.Rotation3d(np.array([0.3, -0.4, 1.0]))
    model.transform(pycolmap.Sim3d(2.5, turn, np.array([4.0, 5, 6])))
    (tmp_path / "0").mkdir()
    model.write(str(tmp_path / "0"))
    found = judged(tmp_path, truth)
    assert (found["registered"], found["models"], found["largest"]) == (8, 1, 8)
    assert found["rotation_deg"]["median"] < 1e-3 and abs(found["rotation_deg"]["worst"] - 2) < 1e-3
    assert found["position_m"]["worst"] < 1e-3 and found["off"] == 1
    assert judged(tmp_path / "none", truth) == {"registered": 0, "models": 0}


def test_a_step_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "COLMAP SIFT-global.json").write_text(json.dumps({"stages": {"map": [2.0, 4.0]}}))
    monkeypatch.setattr(city_block.subprocess, "run", lambda *_, **__: pytest.fail("it is done"))
    assert city_block.done("COLMAP SIFT/global", tmp_path, 1.0)["stages"] == {"map": [2.0, 4.0]}


def test_the_table_tells_a_mapper_that_did_not_end() -> None:
    row: dict[str, Any] = {"views": 1000, "pairs": 12345, "method": "COLMAP SIFT", "mapper": "incremental"}
    row |= {"stages": {"extract": (1.0, 2.0), "match": (3.0, 4.0)}, "longer_than": 60.0, "seconds": [4.0, 6.0]}
    row |= {"load": [[0.5, 1.25], None]}
    assert "| 1,000 | 12,345 | COLMAP SIFT | incremental | 4 | over 60 | – |" in table([row])
    assert "cores: 0.5 to 1.2." in table([row])
