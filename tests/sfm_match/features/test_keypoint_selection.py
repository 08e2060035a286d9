import dataclasses
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import sfm_match
from sfm_match.features.keypoint_selection import Selection, select_keypoints

PLAIN = Selection(max_keypoints=100, threshold=0.0, border=4, nms_radius=2, subpixel=False)


def bumps(shape: tuple[int, int], places: dict[tuple[int, int], float]) -> np.ndarray:
    logits = np.zeros(shape, np.float32)
    for (x, y), height in places.items():
        logits[y, x] = height
    return logits


def test_strongest_first_with_softmax_probabilities() -> None:
    logits = bumps((40, 50), {(10, 20): 5.0, (30, 10): 7.0})
    points, scores = select_keypoints(logits, (50, 40), Selection(2, 0.0, 4, 2, subpixel=False))
    np.testing.assert_array_equal(points, [[30.5, 10.5], [10.5, 20.5]])
    total = np.exp(logits.astype(np.float64)).sum()
    np.testing.assert_allclose(scores, [np.exp(7) / total, np.exp(5) / total], rtol=1e-5)


def test_neither_padding_nor_border_holds_keypoints() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 80)).astype(np.float32)
    logits[:, 60:] += 50  # the padding must not draw the softmax either
    points, scores = select_keypoints(logits, (60, 64), PLAIN)
    assert len(points)
    assert points[:, 0].min() > 4
    assert points[:, 0].max() < 56
    assert points[:, 1].max() < 60
    assert scores.sum() > 0.01


def test_maxima_keep_their_distance() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    points, _ = select_keypoints(logits, (64, 64), PLAIN)
    apart = np.abs(points[:, None] - points[None]).max(axis=-1)
    np.fill_diagonal(apart, 99)
    assert apart.min() > 2


def test_mask_hides() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    points, _ = select_keypoints(logits, (64, 64), PLAIN, mask)
    assert len(points)
    assert (points[:, 0] > 32).all()


def test_threshold_and_limit() -> None:
    logits = bumps((40, 50), {(10, 20): 9.0, (30, 10): 7.0, (40, 30): 5.0})
    total = np.exp(logits.astype(np.float64)).sum()
    above = Selection(100, float(np.exp(6) / total), 4, 2, subpixel=False)
    assert len(select_keypoints(logits, (50, 40), above)[0]) == 2
    assert len(select_keypoints(logits, (50, 40), Selection(1, 0.0, 4, 2, subpixel=False))[0]) == 1


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.2), (-0.4, 0.4)])
def test_soft_argmax_finds_the_place_between_pixels(offset: tuple[float, float]) -> None:
    x, y = 20.5 + offset[0], 15.5 + offset[1]
    columns, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    logits = (20 - ((columns - x) ** 2 + (rows - y) ** 2)).astype(np.float32)
    points, _ = select_keypoints(logits, (40, 30), Selection(1, 0.0, 4, 2, subpixel=True))
    np.testing.assert_allclose(points[0], (x, y), atol=0.02)


def test_border_zero_reaches_the_corner() -> None:
    logits = bumps((20, 20), {(0, 0): 9.0})
    points, _ = select_keypoints(logits, (20, 20), Selection(1, 0.0, 0, 2, subpixel=True))
    np.testing.assert_allclose(points[0], (0.5, 0.5), atol=0.05)


def test_refinement_leaves_neither_border_nor_mask() -> None:
    logits = np.full((40, 50), -9.0, np.float32)
    logits[20, 3:7] = (2.99, 2.99, 3.0, 1.0)  # the maximum is inside the border of 4, its neighbours are not
    mask = np.zeros((40, 50), np.uint8)
    mask[:, 5:] = 255
    how = Selection(1, 0.0, 4, 2, subpixel=True)
    points, _ = select_keypoints(logits, (50, 40), how)
    assert points[0, 0] >= 4
    points, _ = select_keypoints(logits, (50, 40), how, mask)
    np.testing.assert_array_equal(points, [[5.5, 20.5]])


@pytest.mark.parametrize("size", [(96, 128), (131, 60)])
def test_published_keypoints_are_those_of_the_published_detector(size: tuple[int, int]) -> None:
    """Against the exported form in torch, which is tested against kornia."""
    import torch
    from torch import nn

    from exports.keypoints import Detect

    class Given(nn.Module):
        dtype = torch.float32

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :1]

    height, width = size
    logits = np.random.default_rng(0).normal(0, 3, (height, width)).astype(np.float32)
    logits[: height // 2, : width // 2] += 4  # dense there: the weighting has something to do
    image = torch.from_numpy(logits)[None, None].repeat(1, 3, 1, 1)
    detect = Detect(Given(), 300)  # type: ignore[arg-type]  # logits that are given, for a network's
    expected, expected_scores = detect(image)
    how = Selection(300, 0.0, border=0, nms_radius=0, subpixel=False, coverage=True)
    points, scores = select_keypoints(logits, (width, height), how)
    places = (expected[0].numpy() + 1) / 2 * (width, height)
    assert {tuple(row) for row in points.round(2).tolist()} == {tuple(row) for row in places.round(2).tolist()}
    np.testing.assert_allclose(scores, expected_scores[0].numpy(), rtol=1e-4)
    unweighted, _ = select_keypoints(logits, (width, height), Selection(300, 0.0, 0, 0, subpixel=False))
    assert {tuple(row) for row in points.tolist()} != {tuple(row) for row in unweighted.tolist()}


def test_a_small_image_has_fewer_keypoints() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    every, scores = select_keypoints(logits, (96, 64), PLAIN)
    few, strongest = select_keypoints(logits, (96, 64), dataclasses.replace(PLAIN, pixels_per_keypoint=256))
    assert len(every) == 100
    assert len(few) == 2 * 96 * 64 // 256  # of the image, not of its padding; twice, because they are so few
    np.testing.assert_array_equal(few, every[: len(few)])
    np.testing.assert_array_equal(strongest, scores[: len(few)])
    assert len(select_keypoints(logits, (96, 64), dataclasses.replace(PLAIN, pixels_per_keypoint=20_000))[0]) == 0


@pytest.mark.parametrize(
    ("size", "most"),
    [
        ((320, 213), 1024),  # half of it would hold the image badly
        ((400, 400), 1250),
        ((640, 480), 2400),
        ((1024, 683), 4096),
        ((160, 120), 300),
    ],
)
def test_how_many_keypoints_an_image_has(size: tuple[int, int], most: int) -> None:
    limited = dataclasses.replace(PLAIN, max_keypoints=4096, pixels_per_keypoint=128)
    assert limited.most(size) == most
    assert dataclasses.replace(limited, max_keypoints=200).most(size) == 200


def test_flat_ground_has_no_keypoints() -> None:
    """A maximum stands out from the lowest within four pixels, of the image and not of its padding."""
    logits = np.random.default_rng(0).normal(0, 0.01, (64, 128)).astype(np.float32)
    logits[:, 96:] = -50  # padding
    logits[20, 30] += 0.5
    logits[30:34, 60:64] += np.array([[0, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    how = dataclasses.replace(PLAIN, least_contrast=0.25, border=0)
    points, _ = select_keypoints(logits, (96, 64), how)
    np.testing.assert_allclose(points, [[30.5, 20.5]], atol=0.5)
    assert len(select_keypoints(logits, (96, 64), dataclasses.replace(how, least_contrast=0.0))[0]) > 50


def test_flat_pictures_have_hardly_any_features(tmp_path: Path) -> None:
    rows = np.linspace(90, 220, 320)[:, None, None]
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((320, 448, 3), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "sky.png"), np.broadcast_to(rows, (320, 448, 3)).round().astype(np.uint8))
    sfm_match.extract(tmp_path, tmp_path / "work", device="cpu")
    with h5py.File(next((tmp_path / "work" / "features").glob("*.h5"))) as file:
        assert len(file["scores"]) < 0.1 * 2 * 320 * 448 / 64


@pytest.mark.parametrize("coverage", [False, True])
def test_logits_of_tiles_can_be_compared(coverage: bool) -> None:
    """What lies elsewhere in a tile changes probabilities, and their order between tiles; logits stay."""
    rng = np.random.default_rng(0)
    # of 51 pixels around a keypoint, density knows
    common, strong, weak = (rng.normal(level, 1, (64, 200)).astype(np.float32) for level in (4, 4, 0))
    how = Selection(5000, 0.0, 4, 2, subpixel=False, coverage=coverage, logits=True)
    first, second = (
        {tuple(p): s for p, s in zip(points.tolist(), scores.tolist(), strict=True) if p[0] < 140}
        for points, scores in (
            select_keypoints(np.concatenate((common, other), axis=1), (400, 64), how) for other in (strong, weak)
        )
    )
    assert first.keys() == second.keys()
    np.testing.assert_allclose([first[p] for p in first], [second[p] for p in first], atol=0.02)
    if not coverage:
        assert first == {(x, y): common[int(y), int(x)] for x, y in first}
