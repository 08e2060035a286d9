"""Decoded, resized, padded batches, prepared ahead of the network by a few threads."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.graph_constants import IMAGENET_MEAN, IMAGENET_STD
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.files import Decode, ImageError, decode, find_mask, read_mask, reduced


@dataclass(frozen=True)
class Item:
    """One image of a batch."""

    name: str
    geometry: ImageGeometry


@dataclass(frozen=True)
class Loaded:
    """A batch for the network. Images that could not be read are in `failed` and not in the rest."""

    items: list[Item]
    images: NDArray[np.uint8]  # (B, H, W, 3) RGB, padded
    masks: list[NDArray[np.uint8] | None]  # B; (h, w) without padding, 0 where no keypoint is wanted
    failed: dict[str, str]
    retry: set[str]  # of the failed: another try may cure it

    def rows(self, rows: Sequence[int]) -> "Loaded":
        """Some images of the batch."""
        chosen = list(rows)
        items, masks = [self.items[row] for row in chosen], [self.masks[row] for row in chosen]
        return replace(self, items=items, images=self.images[chosen], masks=masks)


_Prepared = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]


class Loader:
    """Iterates over batches in their order, reading ahead."""

    def __init__(
        self,
        folder: Path,
        masks: Path | None,
        batches: Iterable[Sequence[Item]],
        workers: int,
        ahead: int,
        *,
        reduced: bool = True,
        decoder: Decode = decode,
    ) -> None:
        """
        Args:
            folder: of the images.
            masks: folder of masks, or None.
            batches: items of one bucket each; taken as they are needed.
            workers: decoding threads.
            ahead: images in memory beyond the batch in hand; with batches, up to the last of one. 0: a batch is read
                when it is asked for, and not kept.
            reduced: decode large JPEGs at a fraction of their size, where that is enough.
            decoder: of the images; masks are not its business.
        """
        self._folder, self._masks, self._batches = folder, masks, batches
        self._workers, self._ahead, self._reduced, self._decoder = workers, ahead, reduced, decoder

    def __iter__(self) -> Iterator[Loaded]:
        cv2.setNumThreads(1)  # the threads are here
        upcoming = iter(self._batches)
        begun: deque[tuple[Sequence[Item], list[Future[_Prepared]]]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:

            def begin(images: int) -> None:
                while sum(len(batch) for batch, _ in begun) < images:
                    if (batch := next(upcoming, None)) is None:
                        return
                    begun.append((batch, [pool.submit(self._prepare, item) for item in batch]))

            while True:
                begin(max(self._ahead, 1))
                if not begun:
                    return
                first = begun.popleft()
                begin(self._ahead)
                yield _loaded(*first)
                del first  # or it would stay in memory while the next one is read

    def _prepare(self, item: Item) -> _Prepared:
        geometry = item.geometry
        raw = decode_for(geometry, self._folder / item.name, reduce=self._reduced, decoder=self._decoder)
        mask_path = find_mask(self._masks, item.name)
        mask = None
        if mask_path is not None:
            visible = geometry.orient(read_mask(mask_path, geometry.raw_size))
            mask = resize(visible, geometry.network_size, cv2.INTER_NEAREST)
        return to_network(raw, geometry), mask


def _loaded(batch: Sequence[Item], prepared: Sequence[Future[_Prepared]]) -> Loaded:
    """Waits for the images of a batch."""
    good: list[tuple[Item, _Prepared]] = []
    failed: dict[str, str] = {}
    retry: set[str] = set()
    for item, future in zip(batch, prepared, strict=True):
        try:
            good.append((item, future.result()))
        except ImageError as error:
            failed[item.name] = str(error)
            if not error.lasting:
                retry.add(item.name)
    width, height = batch[0].geometry.bucket
    if len(good) == 1:  # not copied: it may be large
        images = good[0][1][0][None]
    else:
        empty = np.empty((0, height, width, 3), np.uint8)
        images = np.stack([image for _, (image, _) in good]) if good else empty
    return Loaded([item for item, _ in good], images, [mask for _, (_, mask) in good], failed, retry)


def decode_for(geometry: ImageGeometry, path: Path, *, reduce: bool, decoder: Decode = decode) -> NDArray[np.uint8]:
    """Raw pixels, at the whole size or (`reduce`) at a fraction that is enough for the network.

    Raises:
        ImageError: it cannot be decoded, or has not the size that the geometry was planned for.
    """
    raw = decoder(path, geometry.raw_network_size if reduce else None)
    width, height = geometry.raw_size
    if (raw.shape[1], raw.shape[0]) not in (geometry.raw_size, reduced(geometry.raw_size, geometry.raw_network_size)):
        raise ImageError(f"decodes to {raw.shape[1]} x {raw.shape[0]} pixels, its header says {width} x {height}")
    return raw


def to_network(raw: NDArray[np.uint8], geometry: ImageGeometry) -> NDArray[np.uint8]:
    """Raw pixels, at any scale, to the padded (H, W, 3) uint8 image of the bucket.

    Shrinking is by area, so that nothing aliases; the padding repeats the last row and column.
    """
    width, height = geometry.network_size
    if (raw.shape[1], raw.shape[0]) != geometry.raw_network_size:  # before turning: fewer pixels to turn
        raw = resize(raw, geometry.raw_network_size, cv2.INTER_AREA)
    image = geometry.orient(raw)
    right, bottom = geometry.bucket[0] - width, geometry.bucket[1] - height
    if right == bottom == 0:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)


def resize(image: NDArray[np.uint8], size: tuple[int, int], how: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def levels(mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) mean and deviation -> (C, 256): every level of every channel, normalised; 255 counts as 1."""
    return np.arange(256, dtype=np.float32) * (1 / (255 * std))[:, None] + (-mean / std)[:, None]


_IMAGENET = levels(np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32))


def normalise(image: NDArray[np.uint8], levels: NDArray[np.float32] = _IMAGENET) -> NDArray[np.float32]:
    """(H, W, 3) uint8 RGB to (3, H, W) float32; or other channels, with their `levels` (C, 256)."""
    planes = np.empty((len(levels), *image.shape[:2]), np.float32)
    for level, channel, plane in zip(levels, cv2.split(image), planes, strict=True):
        cv2.LUT(channel, level, dst=plane)  # six times faster than arithmetic
    return planes
