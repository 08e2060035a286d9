"""The picture of a model: what is above covers what is below, whichever axis is up, and a metre is a metre."""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sfm_match
from sfm_match.errors import NothingDone, SfmMatchError
from sfm_match.reporting.model_picture import WIDTH, draw_model
from sfm_match.reporting.models import Scene
from sfm_match.reporting.packing import quantised
from sfm_match.reporting.pictures import INK, VERMILLION, Pen, Pixels

RED, GREEN = (220, 0, 0), (0, 200, 0)
LEVEL = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], np.float64)  # a camera that looks along y; z is up
_, _, ROTATED = np.linalg.svd(np.random.default_rng(3).normal(size=(3, 3)))
ANY = ROTATED * np.linalg.det(ROTATED)  # a rotation


def scene(points: np.ndarray, colours: np.ndarray, centres: np.ndarray, turn: Any = None) -> Scene:
    """All cameras look along y, z is up; then all is turned."""
    turn = np.eye(3) if turn is None else turn
    points, centres = points.reshape(-1, 3) @ turn.T, centres.reshape(-1, 3) @ turn.T
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.ones(3))
    axes = np.repeat((LEVEL @ turn.T)[None], len(centres), axis=0).astype(np.float32)
    halves = np.full((len(centres), 2), 0.5, np.float32)
    return Scene(
        len(points),
        low.tolist(),
        high.tolist(),
        quantised(points, low, high),
        colours.astype(np.uint8).reshape(-1, 3),
        (turn @ (0.0, 0.0, 1.0)).tolist(),
        list(range(len(centres))),
        centres.astype(np.float32),
        axes,
        halves,
    )


def table(turn: Any = None) -> Scene:
    """A red floor of 10 x 10, a green square of 4 x 4 above its middle; three cameras before them."""
    random = np.random.default_rng(0)
    floor, top = random.uniform(-5, 5, (30_000, 3)), random.uniform(-2, 2, (20_000, 3))
    floor[:, 2] *= 0.02
    top[:, 2] = 3 + 0.05 * top[:, 2]
    colours = np.concatenate((np.tile(RED, (len(floor), 1)), np.tile(GREEN, (len(top), 1))))
    centres = np.array([(-3, -8, 1), (0, -9, 1), (3, -8, 1)], np.float64)
    return scene(np.concatenate((floor, top)), colours, centres, turn)


def share(picture: Pixels, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 40).mean())


@pytest.mark.parametrize("turn", [None, ANY, -LEVEL * np.linalg.det(-LEVEL)], ids=["z", "any", "other"])
def test_from_above_and_from_the_side(turn: Any) -> None:
    picture = draw_model(table(turn), "title", metric=False)
    assert picture.shape[1] == WIDTH
    above, side = (picture[:, : WIDTH // 2], picture[:, WIDTH // 2 :])
    green, red = (np.argwhere(np.abs(above.astype(int) - colour).max(axis=2) < 40) for colour in (GREEN, RED))
    np.testing.assert_allclose(np.ptp(green, axis=0) / np.ptp(red, axis=0), 0.4, atol=0.02)
    (top, left), (bottom, right) = green.min(axis=0), green.max(axis=0)
    middle = above[top:bottom, left:right]
    assert share(middle, GREEN) > 5 * share(middle, RED)  # 2, if the floor covered the top
    rows = [np.argwhere(np.abs(side.astype(int) - colour).max(axis=2) < 40)[:, 0] for colour in (GREEN, RED)]
    assert rows[0].max() < rows[1].min()  # the top is higher up
    assert share(above, VERMILLION) > 0.0003
    cameras = np.argwhere(np.abs(above.astype(int) - VERMILLION).max(axis=2) < 40)[:, 0]
    assert np.median(cameras) > np.median(red[:, 0])  # they look up the page


def test_the_scale_bar_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Pen, "write", lambda _self, _pixels, _place, text, _colour=None: said.append(text))
    picture = draw_model(table(), "title", metric=True)
    (metres,) = (float(text.removesuffix(" m")) for text in said if text.endswith(" m"))
    ink = np.argwhere((picture[-44:] == INK).all(axis=2))[:, 1]
    red = np.argwhere(np.abs(picture[:, : WIDTH // 2].astype(int) - RED).max(axis=2) < 40)[:, 1]
    # the floor has 10 m
    assert (np.ptp(ink) - 2) / metres == pytest.approx(np.ptp(red) / 10, rel=0.03)
    assert "From above, north up" in said
    said.clear()
    draw_model(table(), "title", metric=False)
    assert not [text for text in said if text.endswith(" m")]


def test_outliers_do_not_shrink_it() -> None:
    plain = table()
    random = np.random.default_rng(1)
    far = random.uniform(-500, 500, (200, 3))
    points = np.asarray(plain.low) + plain.points / 65535 * np.subtract(plain.high, plain.low)
    both = scene(np.concatenate((points, far)), np.concatenate((plain.colours, np.zeros((200, 3)))), plain.centres)
    picture = draw_model(both, "title", metric=True)
    assert share(picture, RED) > 0.8 * share(draw_model(plain, "title", metric=True), RED)


@pytest.mark.parametrize("cameras", [0, 1, 2])
@pytest.mark.parametrize("points", [0, 1, 2])
def test_next_to_nothing(points: int, cameras: int) -> None:
    few = scene(np.ones((points, 3)), np.zeros((points, 3)), np.zeros((cameras, 3)))
    for metric in (False, True):
        assert draw_model(few, "title", metric=metric, note="note").shape[1] == WIDTH


def test_many_points_and_cameras() -> None:
    random = np.random.default_rng(0)
    count = 300_000
    many = scene(random.normal(size=(count, 3)), random.integers(0, 256, (count, 3)), random.normal(size=(3000, 3)) * 3)
    started = time.monotonic()
    draw_model(many, "title", metric=True)
    assert time.monotonic() - started < 10  # 1 s


def test_of_a_workspace(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Pen, "write", lambda _self, _pixels, _place, text, _colour=None: said.append(text))
    report = sfm_match.report(workspace, png=tmp_path / "model.png")
    model = sfm_match.open(workspace).model
    assert said[0].startswith(f"work: 6 of 6 images, {model.num_points3D():,} points, track length ")
    assert report.facts["pictures"] == [str(tmp_path / "model.png")]
    picture = cv2.imread(str(tmp_path / "model.png"))
    assert picture is not None
    assert share(np.asarray(picture[..., ::-1]), VERMILLION) > 0.0003
    (workspace / "sparse" / "0" / "points3D.bin").write_bytes(b"garbage")
    with pytest.raises(SfmMatchError, match="not as it was written"):
        sfm_match.report(workspace, png=tmp_path / "other.png")
    (workspace / "sparse").rename(workspace / "gone")
    with pytest.raises(NothingDone, match="no model yet"):
        sfm_match.report(workspace, png=tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
