"""Pictures of pairs: marks where the matches are, kinds told apart, numbers said, whatever the images are."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.coordinates import orient
from sfm_match.images.files import Header
from sfm_match.reporting.pair_picture import OTHER, UNVERIFIED, WIDTH, View, draw_pair, kinds_of, pair_of
from sfm_match.reporting.pictures import SKY_BLUE, Pen, Pixels
from sfm_match.results import Results


def view(size: tuple[int, int], points: np.ndarray | None = None, orientation: int = 1, **more: Any) -> View:
    """Of a black image of this (width, height), as the sensor has it."""
    found = np.empty((0, 2), np.float32) if points is None else points.astype(np.float32)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    return View(more.pop("name", "a.jpg"), Header(*size, orientation), pixels, found, **more)


def pixels_of(picture: Pixels, colour: tuple[int, int, int]) -> np.ndarray:
    """(N, 2) x, y of the pixels of this colour, near enough; the legend's are left out."""
    away = np.abs(picture[:-68].astype(int) - colour).max(axis=2)
    return np.argwhere(away < 30)[:, ::-1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are written into pictures."""
    texts: list[str] = []
    monkeypatch.setattr(Pen, "write", lambda _self, _pixels, _place, text, _colour=None: texts.append(text))
    return texts


@pytest.mark.parametrize("orientation", range(1, 9))
def test_marks_are_where_the_points_are(orientation: int) -> None:
    raw = np.array([(120.5, 40.5)])
    one = np.zeros((240, 320), np.uint8)
    one[40, 120] = 1
    y, x = np.argwhere(orient(one, orientation))[0]
    height, width = orient(one, orientation).shape
    pair = view((320, 240), raw, orientation), view((320, 240), raw, orientation)
    picture = draw_pair(*pair, kinds_of(np.array([False])))
    crosses = pixels_of(picture, OTHER.colour)
    scale = 960 / width if width > height else 1080 / height
    left = (WIDTH // 2 - width * scale) / 2
    for side in (0, 1):
        expected = np.array(((x + 0.5) * scale + left + side * WIDTH / 2, (y + 0.5) * scale))
        assert np.linalg.norm(crosses - expected, axis=1).min() < 2
    line = crosses[np.abs(crosses[:, 1] - (y + 0.5) * scale) < 3]
    assert 0.4 * WIDTH / 2 < len(np.unique(line[:, 0])) < 0.95 * WIDTH / 2  # dashed


def test_kinds_are_told_apart_and_counted(said: list[str]) -> None:
    random = np.random.default_rng(0)
    points = random.uniform(20, 300, (700, 2))
    inliers = np.arange(700) < 450
    picture = draw_pair(view((320, 320), points), view((320, 320), points, name="b.jpg"), kinds_of(inliers), "odd")
    assert len(pixels_of(picture, SKY_BLUE)) > 1000
    assert len(pixels_of(picture, OTHER.colour)) > 1000
    assert said == [
        "A: a.jpg",
        "B: b.jpg",
        "450 inliers (200 lines drawn)",
        "250 other matches (200 lines drawn)",
        "odd",
    ]
    only = draw_pair(view((320, 320), points[:3]), view((320, 320), points[:3]), kinds_of(inliers[:3]))
    assert not len(pixels_of(only, OTHER.colour))
    assert said[-2:] == ["3 inliers", "0 other matches"]


def test_nothing_in_common(said: list[str]) -> None:
    picture = draw_pair(view((300, 200)), view((300, 200)), kinds_of(np.zeros(0, bool)), "rejected: few matches")
    assert said[-1] == "0 matches; rejected: few matches"
    assert not picture[:640].any()


@pytest.mark.parametrize("first", [(64, 48), (6000, 300), (300, 6000), (1, 1), (2000, 1500)])
@pytest.mark.parametrize("second", [(640, 480), (9, 3000)])
def test_any_shapes(first: tuple[int, int], second: tuple[int, int]) -> None:
    name = "写\n<b>" + "long" * 200 + ".jpg"
    ends = [np.array([(0, 0), size, (size[0] / 2, size[1] / 2)]) for size in (first, second)]
    picture = draw_pair(view(first, ends[0], name=name), view(second, ends[1], 6), kinds_of(np.ones(3, bool)))
    assert picture.shape[1] == WIDTH
    assert 48 < picture.shape[0] <= 1080 + 68
    assert len(pixels_of(picture, SKY_BLUE)) > 20


def test_panoramas_are_one_above_the_other() -> None:
    wide = view((3000, 500))
    assert draw_pair(wide, wide, kinds_of(np.zeros(0, bool))).shape[0] == 2 * WIDTH * 500 // 3000 + 68


def test_what_a_mask_leaves_out_is_dark() -> None:
    mask = np.full((30, 40), 255, np.uint8)
    mask[:, :20] = 0
    white = np.full((300, 400, 3), 255, np.uint8)
    masked = View("a.jpg", Header(400, 300), white, np.empty((0, 2), np.float32), mask)
    picture = draw_pair(masked, masked, kinds_of(np.zeros(0, bool)))
    assert picture[300, 200].max() < 100
    assert picture[300, 800].min() == 255


def test_of_a_workspace(workspace: Path, tmp_path: Path, said: list[str]) -> None:
    results = sfm_match.open(workspace)
    a, b = results.verified_pairs[0]
    inliers, matches = len(results.verified(a, b)), len(results.matches(a, b).indices)
    assert 200 < inliers < matches
    sfm_match.report(workspace, pair=(a, b), out=tmp_path / "pair.png")
    assert said == [f"A: {a}", f"B: {b}", f"{inliers} inliers (200 lines drawn)", f"{matches - inliers} other matches"]
    picture = cv2.imread(str(tmp_path / "pair.png"))
    assert picture is not None
    assert len(pixels_of(np.asarray(picture[..., ::-1], np.uint8), SKY_BLUE)) > 100
    with pytest.raises(UsageError, match="exists"):
        sfm_match.report(workspace, pair=(a, b), out=tmp_path / "pair.png")
    with pytest.raises(UsageError, match="no such image"):
        sfm_match.report(workspace, pair=(a, "x.jpg"), out=tmp_path / "new.png")
    with pytest.raises(UsageError, match="names the same file"):
        sfm_match.report(workspace, pair=(a, b), out=tmp_path / "new.png", png=tmp_path / "new.png")
    with pytest.raises(UsageError, match="needs --pair"):
        sfm_match.report(workspace, out=tmp_path / "new.png")
    with pytest.raises(NothingDone, match="no matches"):
        sfm_match.report(workspace, pair=(a, a), out=tmp_path / "new.png")
    (workspace / "database.db").unlink()
    sfm_match.report(workspace, pair=(b, a), out=tmp_path / "pair.png", overwrite=True)
    assert said[-3:] == [f"A: {b}", f"B: {a}", f"{matches} matches, not verified yet (200 lines drawn)"]
    turned = cv2.imread(str(tmp_path / "pair.png"))
    assert turned is not None
    assert len(pixels_of(np.asarray(turned[..., ::-1], np.uint8), UNVERIFIED.colour)) > 100


def test_masks_of_a_workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (48, 36)).save(tmp_path / "view04.jpg.png")  # all black, in another size
    plain = pair_of(sfm_match.open(finished), "view04.jpg", "view05.jpg")
    monkeypatch.setattr(Results, "mask_folder", tmp_path)
    masked = pair_of(sfm_match.open(finished), "view04.jpg", "view05.jpg")
    assert masked[:700, :900].mean() < 0.6 * plain[:700, :900].mean()
    np.testing.assert_array_equal(masked[:700, 1800:], plain[:700, 1800:])


def test_infer_draws_what_it_found(rendered: Path, tmp_path: Path, said: list[str]) -> None:
    flat = tmp_path / "flat.png"
    Image.new("RGB", (200, 200), "red").save(flat)
    sfm_match.infer(rendered / "view05.jpg", flat, tmp_path / "viz.jpg", max_keypoints=300, size=320)
    assert said[0].endswith("view05.jpg")
    assert "0 inliers" in said or said[-1] == "0 matches"
    assert cv2.imread(str(tmp_path / "viz.jpg")) is not None
