"""Photographs in tiles: what the network finds in the whole, each keypoint once, where it is in the file."""

import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Shared
from PIL import Image

import sfm_match
from sfm_match.errors import UsageError
from sfm_match.features.extractor import NO_KEYPOINT, NOT_FINITE, Found, features_of
from sfm_match.features.tiles import TiledExtractor, buckets_of, geometry_of
from sfm_match.images.coordinates import plan_tiles
from sfm_match.images.files import Header, decode
from sfm_match.images.loader import Item, Loaded
from sfm_match.job.progress import Clock
from sfm_match.options.stages import ExtractOptions
from sfm_match.stages import extract_units
from sfm_match.store.features import Features, read_features

SIZE = (960, 720)
OPTIONS: dict[str, Any] = {"size": SIZE[0], "max_keypoints": 2000}
TILED: dict[str, Any] = {**OPTIONS, "tile": 640, "tile_overlap": 320}
LEFTMOST, RIGHTMOST, FAILING = 200, 201, 1  # reds with a meaning of their own


def extracted(images: Path, work: Path, **options: Any) -> dict[str, Features]:
    sfm_match.extract(images, work, **options)
    return read_features(work / "features" / "00000.h5")


@pytest.fixture(scope="module")
def pictures(views: np.ndarray, shared: Shared) -> Path:
    """A view the same with an EXIF orientation, and masks that hide its left third."""

    def make(folder: Path) -> None:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        view = Image.fromarray(views[2])
        view.save(folder / "images" / "upright.png")
        turned = view.transpose(Image.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(folder / "images" / "turned.png", exif=exif)
        mask = np.full(SIZE[::-1], 255, np.uint8)
        mask[:, : SIZE[0] // 3] = 0
        Image.fromarray(mask).save(folder / "masks" / "upright.png")

    return shared("pictures-for-tiles", make)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    return extracted(pictures / "images", tmp_path_factory.mktemp("whole"), **OPTIONS)


@pytest.fixture(scope="module")
def tiled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    return extracted(pictures / "images", tmp_path_factory.mktemp("tiled"), **TILED)


def nearest(ours: Features, theirs: Features) -> tuple[np.ndarray, np.ndarray]:
    """Of each of our keypoints, the distance to the nearest of theirs, and its row."""
    apart = np.linalg.norm(ours.keypoints[:, None] - theirs.keypoints[None], axis=2)
    return apart.min(axis=1), apart.argmin(axis=1)


def test_tiles_find_what_the_whole_does(whole: dict[str, Features], tiled: dict[str, Features]) -> None:
    """With the limit on keypoints, which are the strongest of all: scores of tiles are compared."""
    ours, theirs = tiled["upright.png"], whole["upright.png"]
    assert len(ours.keypoints) == len(theirs.keypoints) == OPTIONS["max_keypoints"]
    apart, row = nearest(ours, theirs)
    same = apart < 0.05
    assert same.mean() > 0.97  # nearly all others are the last in rank
    cosines = (ours.descriptors[same].astype(np.float32) * theirs.descriptors[row[same]].astype(np.float32)).sum(axis=1)
    assert np.percentile(cosines, 1) > 0.999
    assert same[:1000].mean() > 0.99
    assert (np.diff(ours.scores) <= 0).all()


def test_no_keypoint_is_found_twice(tiled: dict[str, Features]) -> None:
    points = tiled["upright.png"].keypoints
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, 9)
    assert apart.min() > 1


def test_an_orientation_moves_the_keypoints_with_the_sensor(tiled: dict[str, Features]) -> None:
    upright, turned = tiled["upright.png"], tiled["turned.png"]
    x, y = upright.keypoints.T
    np.testing.assert_allclose(turned.keypoints, np.stack((y, SIZE[0] - x), axis=1), atol=0.01)
    np.testing.assert_array_equal(turned.scores, upright.scores)


def test_masks(pictures: Path, tiled: dict[str, Features], tmp_path: Path) -> None:
    found = extracted(pictures / "images", tmp_path, masks=pictures / "masks", **TILED)
    points = found["upright.png"].keypoints
    assert points[:, 0].min() > SIZE[0] // 3
    apart, _ = nearest(found["upright.png"], tiled["upright.png"])
    assert (apart[: len(apart) // 2] < 0.01).all()  # the strongest were there before
    np.testing.assert_array_equal(found["turned.png"].keypoints, tiled["turned.png"].keypoints)


def test_a_resized_photograph_and_small_ones(views: np.ndarray, tmp_path: Path) -> None:
    """Raw pixels of a photograph that is shrunk to `--size`; one that is not larger than a tile is not cut."""
    images = tmp_path / "images"
    images.mkdir()
    view = Image.fromarray(views[2])
    view.save(images / "a.png")
    view.resize((2 * SIZE[0], 2 * SIZE[1]), Image.Resampling.NEAREST).save(images / "b.png")
    view.resize((320, 240)).save(images / "c.png")
    sfm_match.extract(images, tmp_path / "tiled", **{**TILED, "max_keypoints": 500})
    sfm_match.extract(images, tmp_path / "plain", **{**OPTIONS, "max_keypoints": 500})
    tiled, plain = sfm_match.open(tmp_path / "tiled"), sfm_match.open(tmp_path / "plain")
    np.testing.assert_allclose(tiled.features("b.png").keypoints, 2 * tiled.features("a.png").keypoints, atol=0.01)
    np.testing.assert_allclose(tiled.features("c.png").keypoints, plain.features("c.png").keypoints, atol=1e-3)


def test_photographs_are_in_memory_one_by_one(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []

    def decoded(path: Path, least: tuple[int, int] | None = None) -> np.ndarray:
        assert not [one for one in alive if one() is not None], path
        pixels = decode(path, least).copy()
        alive.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(extract_units, "find_decoder", lambda *_: decoded)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").symlink_to(pictures / "images" / "upright.png")
    sfm_match.extract(images, tmp_path / "work", **{**TILED, "max_keypoints": 50})
    assert len(alive) == 3


class Dots:
    """An extractor of pixels that are not black, by their red, with a descriptor of their place in the tile."""

    width, engine, redone, batch = 2, "dots", 0, 4

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def most_keypoints(self, size: tuple[int, int]) -> int:
        return size[0] * size[1] // 4000

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        for batch in batches:
            found: Found = {}
            self.shapes.append(batch.images.shape)
            for item, image, mask in zip(batch.items, batch.images, batch.masks, strict=True):
                width, height = item.geometry.network_size
                rows, columns = np.nonzero(image[:height, :width, 0] * (mask is None or mask > 0))
                red = image[rows, columns, 0].astype(np.float32)
                order = np.argsort(-red)
                points = np.stack((columns, rows), axis=1).astype(np.float32) + 0.5
                points[:, 0] += 0.4 * (red == LEFTMOST) - 0.4 * (red == RIGHTMOST)
                descriptors = points.astype(np.float16)[order]
                good = not (red == FAILING).any()
                found[item.name] = (
                    features_of(item.geometry, points[order], red[order], descriptors) if good else NOT_FINITE
                )
            with clock.on("network"):
                yield batch, found


def dotted(dots: dict[tuple[int, int], int], size: tuple[int, int] = (1000, 700)) -> Loaded:
    """A black photograph with pixels (x, y) of a red."""
    image = np.zeros((1, size[1], size[0], 3), np.uint8)
    for (x, y), red in dots.items():
        image[0, y, x] = red
    options = ExtractOptions(size=1000, tile=300, tile_overlap=40, border=0)
    return Loaded([Item("a.png", geometry_of(Header(*size), options, 64))], image, [None], {}, set())


def found_by(dots: Dots, *batches: Loaded) -> list[Features | str]:
    options = ExtractOptions(size=1000, tile=300, tile_overlap=40, border=0)
    return [found["a.png"] for _, found in TiledExtractor(dots, options, 64).each(batches, Clock())]


def test_every_dot_once_and_in_its_place() -> None:
    """On every column of a row and every row of a column, so at the edges and on both sides of each seam."""
    extractor = Dots()
    for along in ({(x, 350): 99 for x in range(0, 1000, 7)}, {(500, y): 99 for y in range(0, 700, 7)}):
        (found,) = found_by(extractor, dotted(along))
        assert isinstance(found, Features)
        assert sorted(map(tuple, (found.keypoints - 0.5).astype(int).tolist())) == sorted(along)
    assert set(extractor.shapes) == {(4, 256, 256, 3)}  # a multiple of 64, 4 tiles a call
    options = ExtractOptions(size=1000, tile=300, tile_overlap=40, border=0)
    buckets = buckets_of([dotted({}).items[0].geometry], options, 64)
    assert buckets == {(256, 256): sum(shape[0] for shape in extractor.shapes) // 2}


def test_the_strongest_of_all_tiles() -> None:
    """One in 4,000 pixels, of the whole: 175."""
    rng = np.random.default_rng(0)
    places = rng.permutation(1000 * 700 // 25)[:200]
    dots = {(5 * int(p % 200), 5 * int(p // 200)): 20 + i % 170 for i, p in enumerate(places)}
    (found,) = found_by(Dots(), dotted(dots))
    assert isinstance(found, Features)
    assert found.scores.tolist() == sorted(dots.values(), reverse=True)[:175]


def test_photographs_without_keypoints_and_tiles_that_fail() -> None:
    nothing = Loaded([], np.empty((0, 8, 8, 3), np.uint8), [], {"b.png": "damaged"}, set())
    extractor = TiledExtractor(Dots(), ExtractOptions(size=1000, tile=300, tile_overlap=40, border=0), 64)
    batches = [dotted({}), nothing, dotted({(10, 10): 9, (990, 10): FAILING}), dotted({(10, 10): 9})]
    results = list(extractor.each(batches, Clock()))
    assert [batch.failed for batch, _ in results] == [{}, {"b.png": "damaged"}, {}, {}]
    assert results[1][1] == {}
    assert [found["a.png"] for _, found in results[:3:2]] == [NO_KEYPOINT, NOT_FINITE]
    last = results[3][1]["a.png"]
    assert isinstance(last, Features)
    assert last.keypoints.tolist() == [[10.5, 10.5]]


def test_one_maximum_on_both_sides_of_a_seam() -> None:
    """Two tiles may put it on different sides, a little apart; a pair of neighbours in one tile is its own affair."""
    seam = plan_tiles((1000, 700), 300, 40, 64)[0].inner[1].stop
    (found,) = found_by(Dots(), dotted({(seam - 1, 100): LEFTMOST, (seam, 100): RIGHTMOST}))
    assert isinstance(found, Features)
    np.testing.assert_allclose(found.keypoints, [[seam - 0.1, 100.5]], atol=1e-4)
    (found,) = found_by(Dots(), dotted({(50, 100): LEFTMOST, (51, 100): RIGHTMOST}))
    assert isinstance(found, Features)
    assert len(found.keypoints) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 200}, "--tile 200: must be at least 256"),
        ({"tile": 1024}, "--tile 1024: must be below --size, here 1024"),
        ({"tile": 512, "tile_overlap": 300}, r"--tile-overlap 300: must be from 8 \(twice --border\) to 256"),
        ({"tile": 512, "tile_overlap": 8, "border": 8}, "must be from 16"),
        ({"tile_overlap": 64}, "--tile-overlap 64: only with --tile"),
    ],
)
def test_options_that_are_not_accepted(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExtractOptions(**options)


def test_features_of_tiles_have_a_fingerprint_of_their_own(pictures: Path, tmp_path: Path) -> None:
    assert not {"tile", "tile_overlap"} & ExtractOptions().inputs().keys()  # those of earlier workspaces stay
    sfm_match.extract(pictures / "images", tmp_path, size=320, tile=256, tile_overlap=64, max_keypoints=50)
    for options, changed in (({}, "--tile was 256, now none"), ({"tile": 256, "tile_overlap": 32}, "was 64, now 32")):
        with pytest.raises(UsageError, match=changed):
            sfm_match.extract(pictures / "images", tmp_path, size=320, max_keypoints=50, **options)  # type: ignore[arg-type]
