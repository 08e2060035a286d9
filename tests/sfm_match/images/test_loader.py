"""Reading ahead, and decoding JPEGs at a fraction of their size where the network sees no more."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import sfm_match
from sfm_match.errors import UsageError
from sfm_match.images.files import decode, read_header, reduced
from sfm_match.images.loader import Item, Loaded, Loader, normalise

MEAN, DEVIATION = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


def test_normalise() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    expected = ((image / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)
    np.testing.assert_allclose(normalise(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((4000, 3000), (1024, 768), (2000, 1500)),
        ((8192, 6144), (1024, 768), (1024, 768)),
        ((4032, 3024), (3000, 2250), (4032, 3024)),
        ((4001, 3000), (1024, 768), (4001, 3000)),  # halves would not lie on pixels
        ((4002, 3000), (500, 375), (2001, 1500)),
        ((640, 480), (640, 480), (640, 480)),
    ],
)
def test_the_smallest_size_that_will_do(
    size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert reduced(size, least) == expected


def loaded(path: Path, size: int, *, fraction: bool) -> np.ndarray:
    item = Item(path.name, read_header(path).geometry(size, 16))
    (batch,) = Loader(path.parent, None, [[item]], workers=1, ahead=1, reduced=fraction)
    assert isinstance(batch, Loaded)
    assert not batch.failed
    return batch.images[0]


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("side", [1600, 3200, 4800])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_dot_stays_where_it_is(orientation: int, side: int, subsampling: int, tmp_path: Path) -> None:
    """At 1/2 and 1/4 of the size, a dot's centre lies within a twentieth of a network pixel of where it was."""
    y, x = np.arange(side * 3 // 4) + 0.5, np.arange(side) + 0.5
    sigma = side / 400  # four network pixels
    bells = (np.exp(-((axis - place * side) ** 2) / (2 * sigma**2)) for axis, place in ((y, 0.2211), (x, 0.3137)))
    dot = np.outer(*bells)
    picture = Image.fromarray(np.repeat((30 + 200 * dot).astype(np.uint8)[..., None], 3, axis=2))
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "dot.jpg"
    picture.save(path, quality=95, subsampling=subsampling, exif=exif)
    assert decode(path, (400, 300)).shape[1] == reduced((side, side * 3 // 4), (400, 300))[0] < side
    centres = []
    for fraction in (False, True):
        weight = np.maximum(loaded(path, 400, fraction=fraction).astype(float).mean(axis=2) - 60, 0)
        rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
        centres.append(((columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()))
    np.testing.assert_allclose(centres[0], centres[1], atol=0.05)
    geometry = read_header(path).geometry(400, 16)
    raw = geometry.raw_from_network(np.array([centres[1]], np.float32))[0] / side * 400
    np.testing.assert_allclose(raw, (0.3137 * 400, 0.2211 * 400), atol=0.1)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_kind_of_jpeg(mode: str, tmp_path: Path) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8), (0, 0), 5)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).convert(mode).save(path, quality=95, progressive=True)
    whole, part = decode(path), decode(path, (400, 300))
    assert part.shape == (300, 400, 3)
    assert np.abs(cv2.resize(whole, (400, 300), interpolation=cv2.INTER_AREA).astype(int) - part).mean() < 2


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (800, 600)).save(path)
    assert decode(path, (100, 75)).shape == (600, 800, 3)


def test_a_fraction_is_a_setting_and_never_mixes(tmp_path: Path) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8), (0, 0), 2)
    for name in "ab":
        Image.fromarray(noise).save(tmp_path / f"{name}.jpg", quality=95)
    options: dict[str, Any] = {"size": 256, "max_keypoints": 200}
    sfm_match.extract(tmp_path, tmp_path / "work", **options)
    with pytest.raises(UsageError, match="--reduced-decode was on, now off"):
        sfm_match.extract(tmp_path, tmp_path / "work", reduced_decode=False, **options)


def test_dummy_network_only_reads(rendered: Path, tmp_path: Path) -> None:
    report = sfm_match.extract(rendered, tmp_path / "work", dummy_network=True, size=256)
    assert report.done == 6
    assert report.stage == "load"
    assert not list((tmp_path / "work").glob("*.json"))
    assert not (tmp_path / "work" / "features").exists()
    with pytest.raises(UsageError, match="--dummy-network: not an option of `run`"):
        sfm_match.run(rendered, tmp_path / "work", dummy_network=True)  # type: ignore[call-arg]  # extract's alone
