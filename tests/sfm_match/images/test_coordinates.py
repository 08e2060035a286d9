"""The dot test: a dot at a known raw place comes back through resize, padding and EXIF orientation."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfm_match.features.keypoint_selection import Selection, select_keypoints
from sfm_match.images.coordinates import (
    ASPECTS,
    ImageGeometry,
    centred_upright,
    normalised_from_network,
    plan_geometry,
    plan_tiles,
    rotated_by_quarters,
)
from sfm_match.images.files import decode, read_header
from sfm_match.images.loader import to_network

RAW_SIZES = [(1600, 1200), (1200, 1600), (1536, 1024), (301, 257), (2001, 777), (900, 2703), (640, 640)]
NETWORK_SIZES = [1024, 512, 333]


@lru_cache(maxsize=3)  # for the orientations that follow
def dot(size: tuple[int, int], at: tuple[float, float], sigma: float) -> np.ndarray:
    """A bright Gaussian at `at`, in the convention that the first pixel's centre is (0.5, 0.5)."""
    width, height = size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    bell = np.outer(*(np.exp(-((axis - place) ** 2) / (2 * sigma**2)) for axis, place in ((y, at[1]), (x, at[0]))))
    return np.repeat((bell * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64)
    sums = weight.sum(axis=0), weight.sum(axis=1)
    return np.array([[(np.arange(len(one)) + 0.5) @ one for one in sums]], np.float32) / weight.sum()


def places(size: tuple[int, int]) -> list[tuple[float, float]]:
    width, height = size
    return [(width * 0.31, height * 0.77), (width * 0.8 + 0.25, height * 0.2 - 0.25), (60.5, 60.0)]


@pytest.mark.parametrize("raw_size", RAW_SIZES)
@pytest.mark.parametrize("size", NETWORK_SIZES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_dot_comes_back(raw_size: tuple[int, int], size: int, orientation: int) -> None:
    geometry = plan_geometry(raw_size, orientation, size, 16)
    sigma = 2.0 * max(raw_size) / min(size, max(raw_size))
    for at in places(raw_size):
        network = to_network(dot(raw_size, at, sigma), geometry)
        assert network.shape[:2] == (geometry.bucket[1], geometry.bucket[0])
        back = geometry.raw_from_network(centroid(network))
        np.testing.assert_allclose(back[0], at, atol=0.25)


@pytest.mark.parametrize("raw_size", [(1600, 1200), (1024, 1536), (1000, 700)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_dot_is_detected_where_it_is(raw_size: tuple[int, int], orientation: int) -> None:
    geometry = plan_geometry(raw_size, orientation, 800, 16)
    at = places(raw_size)[0]
    network = to_network(dot(raw_size, at, 4.0), geometry)
    logits = network[..., 0].astype(np.float32) / np.float32(8)
    points, _ = select_keypoints(logits, geometry.network_size, Selection(1, 0.0, 4, 2, subpixel=True))
    np.testing.assert_allclose(geometry.raw_from_network(points)[0], at, atol=0.25)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_dot_comes_back_from_a_file_with_exif(tmp_path: Path, orientation: int, suffix: str) -> None:
    at = (100.25, 333.5)
    picture = Image.fromarray(dot((640, 480), at, 3.0))
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"dot.{suffix}"
    picture.save(path, quality=98, exif=exif)
    header = read_header(path)
    assert (header.width, header.height, header.orientation) == (640, 480, orientation)
    geometry = plan_geometry((header.width, header.height), header.orientation, 512, 16)
    network = to_network(decode(path), geometry)
    clean = np.where(network > 12, network, 0)  # JPEG noise far from the dot
    np.testing.assert_allclose(geometry.raw_from_network(centroid(clean))[0], at, atol=0.25)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orienting_agrees_with_pillow(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    raw = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    picture = Image.fromarray(raw)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(plan_geometry((60, 40), orientation, 64, 16).orient(raw), upright)


SIDES = st.integers(32, 9000)


@given(SIDES, SIDES, st.integers(1, 8), st.integers(64, 2048), st.sampled_from([8, 16, 56]))
def test_frame_invariants(width: int, height: int, orientation: int, size: int, divisor: int) -> None:
    geometry = plan_geometry((width, height), orientation, size, divisor)
    assert all(side % divisor == 0 for side in geometry.bucket)
    assert all(net <= padded for net, padded in zip(geometry.network_size, geometry.bucket, strict=True))
    assert max(geometry.network_size) == min(size, max(width, height))
    corner = np.array([geometry.network_size], np.float32)
    both = np.concatenate((geometry.raw_from_network(corner * 0), geometry.raw_from_network(corner)))
    assert sorted(both[:, 0].round(2)) == [0, width]
    assert sorted(both[:, 1].round(2)) == [0, height]


@given(SIDES, SIDES, st.integers(256, 2048), st.integers(0, 512), st.sampled_from([1, 8, 56, 64]))
def test_tiles_cover_an_image_once(width: int, height: int, side: int, overlap: int, divisor: int) -> None:
    overlap = min(overlap, side // 2)
    tiles = plan_tiles((width, height), side, overlap, divisor)
    assert len({tile.bucket for tile in tiles}) == 1
    covered = 0
    for tile in tiles:
        rows, columns = tile.inner
        covered += (rows.stop - rows.start) * (columns.stop - columns.start)
        for length, start, seen, padded, inner in (
            (width, tile.left, tile.size[0], tile.bucket[0], columns),
            (height, tile.top, tile.size[1], tile.bucket[1], rows),
        ):
            assert seen <= padded <= -(-side // divisor) * divisor
            assert start % divisor == padded % divisor == 0
            # context at seams, none at the image's edges
            assert inner.start >= overlap // 2 if start > 0 else inner.start == 0
            assert seen - inner.stop >= overlap // 2 if start + seen < length else inner.stop == seen
    assert covered == width * height
    corners = [
        tile.network_from_tile(np.array([[c.start, r.start]], np.float32)) for tile in tiles for r, c in [tile.inner]
    ]
    assert len(np.unique(np.concatenate(corners), axis=0)) == len(tiles)


def test_buckets_are_few() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1500, 6000, (2000, 2))
    sizes = sizes[(sizes.max(axis=1) / sizes.min(axis=1)) < max(ASPECTS)]
    buckets = {plan_geometry((int(w), int(h)), 1, 1024, 16).bucket for w, h in sizes}
    assert len(buckets) <= 2 * len(ASPECTS)


def test_normalised_ends_are_the_outer_edges() -> None:
    points = np.array([[0, 0], [64, 32], [32, 16]], np.float32)
    expected = [[-1, -1], [1, 1], [0, 0]]
    np.testing.assert_allclose(normalised_from_network(points, (64, 32)), expected)


def test_small_images_are_not_enlarged() -> None:
    assert plan_geometry((300, 200), 1, 1024, 16) == ImageGeometry((300, 200), 1, (300, 200), (304, 208))


@pytest.mark.parametrize("turns", range(-4, 5))
def test_points_turn_with_their_picture(turns: int) -> None:
    picture = np.zeros((6, 10))
    picture[1, 7] = 1
    at = np.array([[[(7 + 0.5) / 10 * 2 - 1, (1 + 0.5) / 6 * 2 - 1]]], np.float32)
    turned = np.rot90(picture, turns)
    y, x = np.argwhere(turned)[0]
    expected = (x + 0.5) / turned.shape[1] * 2 - 1, (y + 0.5) / turned.shape[0] * 2 - 1
    np.testing.assert_allclose(rotated_by_quarters(at, turns)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_lightglue_sees_the_upright_image(orientation: int) -> None:
    """The centre is (0, 0), the ends of the longer side are -1 and 1, and x is that of the upright picture."""
    raw = np.array([[800, 600], [0, 0], [1600, 1200], [10, 0], [0, 10]], np.float32)
    found = centred_upright(raw, (1600, 1200), orientation)
    np.testing.assert_allclose(found[0], 0, atol=1e-6)
    longer, shorter = (1, 0) if orientation > 4 else (0, 1)
    assert np.abs(found).max(axis=0)[[longer, shorter]].tolist() == [1, 0.75]
    upright = plan_geometry((1600, 1200), orientation, 1600, 1).upright_from_raw(raw)
    np.testing.assert_allclose(found - found[1], (upright - upright[1]) / 800, atol=1e-6)
