"""Large photographs in tiles: each tile goes through the network as an image of its own, and the features are merged.

Of the tiles that see a place, the one that sees most around it finds the keypoints there: masks hide the place from the
others, whatever the extractor. Photographs come and go one by one, and only tiles are copied: 12,000 x 8,000 pixels are
288 MB.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.features.extractor import NO_KEYPOINT, Extractor, FeatureModel, Found, extractor_of, features_of
from sfm_match.images.coordinates import ImageGeometry, Points, Tile, plan_tiles
from sfm_match.images.files import Header
from sfm_match.images.loader import Item, Loaded
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.progress import Clock
from sfm_match.options.stages import ExtractOptions

_SAME = 1.0  # network pixels: what is nearer to a keypoint of another tile is the same, moved over the seam


def geometry_of(header: Header, options: ExtractOptions, divisor: int) -> ImageGeometry:
    """How an image gets to the network. One that is cut is not padded: its tiles are.

    Args:
        header: of the image.
        options: of the extraction.
        divisor: of the model; sides of padded images are multiples of it, pixels.
    """
    geometry = header.geometry(options.size, divisor)
    return dataclasses.replace(geometry, bucket=geometry.network_size) if _is_cut(geometry, options) else geometry


def buckets_of(geometries: Iterable[ImageGeometry], options: ExtractOptions, divisor: int) -> Counter[tuple[int, int]]:
    """What the network will see of images of these geometries: (width, height) with padding -> how many."""
    buckets = Counter[tuple[int, int]]()
    for geometry in geometries:
        if _is_cut(geometry, options):
            tiles = _tiles(geometry, options, divisor)
            buckets[tiles[0].bucket] += len(tiles)
        else:
            buckets[geometry.bucket] += 1
    return buckets


def create_extractor(model: FeatureModel, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> Extractor:
    """The extractor of the model; with `--tile`, one that cuts photographs.

    Args:
        model: as `ExtractorModule.chosen_model` gives it.
        options: how to extract.
        buckets: of `buckets_of`.
    """
    extractor = extractor_of(options.model).create(model, options, buckets)
    return TiledExtractor(extractor, options, model.divisor) if options.tile is not None else extractor


def _is_cut(geometry: ImageGeometry, options: ExtractOptions) -> bool:
    return options.tile is not None and max(geometry.network_size) > options.tile


def _tiles(geometry: ImageGeometry, options: ExtractOptions, divisor: int) -> list[Tile]:
    if options.tile is None:
        raise ValueError("nothing is cut without --tile")
    return plan_tiles(geometry.network_size, options.tile, options.tile_overlap, divisor)


class TiledExtractor:
    """An `extractor.Extractor` of photographs, by one of tiles. A batch is one photograph."""

    batch = 1

    def __init__(self, extractor: Extractor, options: ExtractOptions, divisor: int) -> None:
        """
        Args:
            extractor: of tiles, and of photographs that are not cut.
            options: how to cut.
            divisor: of the model.
        """
        self._extractor, self._options, self._divisor = extractor, options, divisor

    @property
    def width(self) -> int:
        """As `Extractor.width`."""
        return self._extractor.width

    @property
    def engine(self) -> str:
        """As `Extractor.engine`."""
        return self._extractor.engine

    @property
    def redone(self) -> int:
        """Tiles that half precision failed."""
        return self._extractor.redone

    def most_keypoints(self, size: tuple[int, int]) -> int:
        """As `Extractor.most_keypoints`."""
        return self._extractor.most_keypoints(size)

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        """As `Extractor.each`; photographs that were cut come back without their pixels."""
        begun: deque[_Merged | None] = deque()  # None: not cut

        def parts() -> Iterator[Loaded]:
            for batch in batches:
                give_memory_back()
                if batch.items and _is_cut(batch.items[0].geometry, self._options):
                    tiles = _tiles(batch.items[0].geometry, self._options, self._divisor)
                    begun.append(_Merged(batch, tiles, self._extractor))
                    yield from _cut(batch, tiles, self._extractor.batch)
                else:
                    begun.append(None)
                    yield batch
                del batch  # or it would stay in memory while the next one is read
                give_memory_back()

        for part, found in self._extractor.each(parts(), clock):
            merged = begun[0]
            if merged is None:
                yield part, found
            elif merged.add(part.items, found):
                yield merged.batch, merged.found()
            else:
                continue
            begun.popleft()


def _cut(photograph: Loaded, tiles: Sequence[Tile], batch: int) -> Iterator[Loaded]:
    """A batch of one photograph as batches of tiles."""
    (pixels,), (mask,) = photograph.images, photograph.masks
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        items = [Item(f"{photograph.items[0].name} {tile.left},{tile.top}", tile.geometry) for tile in part]
        images = np.stack([_padded(pixels[tile.whole], tile.bucket) for tile in part])
        yield Loaded(items, images, [_mask(tile, mask) for tile in part], {}, set())


def _padded(pixels: NDArray[np.uint8], bucket: tuple[int, int]) -> NDArray[np.uint8]:
    right, bottom = bucket[0] - pixels.shape[1], bucket[1] - pixels.shape[0]
    return np.asarray(cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)


def _mask(tile: Tile, mask: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Of a tile: what the mask of the photograph shows of its inner part."""
    shown = np.zeros(tile.size[::-1], np.uint8)
    shown[tile.inner] = 255 if mask is None else mask[tile.whole][tile.inner]
    return shown


class _Merged:
    """What was found of a photograph so far: the strongest keypoints of its tiles."""

    def __init__(self, photograph: Loaded, tiles: Iterable[Tile], extractor: Extractor) -> None:
        """
        Args:
            photograph: a batch of one.
            tiles: in the order in which they come.
            extractor: of tiles.
        """
        self.batch = dataclasses.replace(photograph, images=np.empty((0, 0, 0, 3), np.uint8))
        (self._item,) = photograph.items
        self._tiles = deque(tiles)
        self._most = extractor.most_keypoints(self._item.geometry.network_size)
        empty = np.empty((0, extractor.width), np.float16)
        # keypoints in network pixels of the photograph
        self._kept: list[NDArray[Any]] = [np.empty((0, 2), np.float32), np.empty(0, np.float32), empty]
        self._error = ""

    def add(self, items: Iterable[Item], found: Found) -> bool:
        """Takes the next tiles. Whether they were the last."""
        for item in items:
            tile, one = self._tiles.popleft(), found[item.name]
            if isinstance(one, str):
                self._error = self._error if one == NO_KEYPOINT else one
                continue
            points = tile.network_from_tile(one.keypoints)
            new = _without_repeated(points, self._kept[0], tile)
            more: list[NDArray[Any]] = [points[new], one.scores[new], one.descriptors[new]]
            joined = [np.concatenate(both) for both in zip(self._kept, more, strict=True)]
            best = np.argsort(-joined[1], kind="stable")[: self._most]
            self._kept = [rows[best] for rows in joined]
        return not self._tiles

    def found(self) -> Found:
        """Of the photograph. It has no features where a tile failed."""
        name, geometry = self._item.name, self._item.geometry
        points, scores, descriptors = self._kept
        return {name: self._error or features_of(geometry, points, scores, descriptors)}


def _without_repeated(points: Points, earlier: Points, tile: Tile) -> NDArray[np.int64]:
    """Rows of (N, 2) keypoints of a tile that are none of the (M, 2) of earlier tiles. All in network pixels.

    Earlier tiles are above and to the left. The tiles' values differ a little, so that a maximum may lie on this side
    of a seam in one and on that side in the other.
    """
    rows, columns = tile.inner
    seams = np.array((tile.left + columns.start, tile.top + rows.start), np.float32)
    at_seams = np.flatnonzero((points < seams + _SAME).any(axis=1))
    beside = earlier[(np.abs(earlier - seams) < _SAME).any(axis=1)]
    apart = np.linalg.norm(points[at_seams, None] - beside[None], axis=2)  # (few, few)
    return np.delete(np.arange(len(points)), at_seams[(apart < _SAME).any(axis=1)])
