"""The one place for coordinates.

Three coordinate frames, all with x to the right, y down, in pixels, the centre of the top-left pixel at (0.5, 0.5)
(COLMAP's convention), so that a change of scale is a multiplication:

- raw: the pixels as the sensor stored them, what COLMAP reads and what is stored;
- oriented: after EXIF orientation, the upright image that the network sees;
- network: oriented, resized so that the long side is `--size`, at the top left of a padded bucket. With `--tile`, the
  network sees parts of it.

hloc's files use integer centres: subtract 0.5 going out, add 0.5 coming in.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # (N, 2) x, y

# EXIF orientation -> (transposed, then mirrored in x, then mirrored in y), from raw to oriented.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

# Width / height of the landscape buckets. Few, so that engines with static shapes stay few; padding costs at most the
# step to the next one.
ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0, 3.0)


@dataclass(frozen=True)
class ImageGeometry:
    """How one image gets from the sensor to the network."""

    raw_size: tuple[int, int]  # (width, height)
    orientation: int  # EXIF, 1 to 8
    network_size: tuple[int, int]  # (width, height) of the resized image, without padding
    bucket: tuple[int, int]  # (width, height) with padding

    @property
    def oriented_size(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return upright_size(self.raw_size, self.orientation)

    @property
    def raw_network_size(self) -> tuple[int, int]:
        """(width, height) of the resized image before it is turned upright."""
        width, height = self.network_size
        return (height, width) if self.transposed else (width, height)

    @property
    def raw_scale(self) -> Points:
        """(2,) x, y: pixels of the resized image, before it is turned upright, per raw pixel."""
        return np.divide(self.raw_network_size, self.raw_size).astype(np.float32)

    @property
    def transposed(self) -> bool:
        """Whether the upright image swaps the sensor's axes."""
        return _ORIENTATIONS[self.orientation][0]

    def orient(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raw pixels (H, W, ...) to the upright image."""
        return orient(raw, self.orientation)

    def raw_from_network(self, points: Points) -> Points:
        """(N, 2) network pixels to raw pixels."""
        transposed, mirror_x, mirror_y = _ORIENTATIONS[self.orientation]
        width, height = self.oriented_size
        x = points[:, 0] * (width / self.network_size[0])
        y = points[:, 1] * (height / self.network_size[1])
        x = width - x if mirror_x else x
        y = height - y if mirror_y else y
        return np.stack((y, x) if transposed else (x, y), axis=1).astype(np.float32)

    def upright_from_raw(self, points: Points) -> Points:
        """(N, 2) raw pixels to pixels of the upright image."""
        transposed, mirror_x, mirror_y = _ORIENTATIONS[self.orientation]
        width, height = self.oriented_size
        x, y = (points[:, 1], points[:, 0]) if transposed else (points[:, 0], points[:, 1])
        return np.stack((width - x if mirror_x else x, height - y if mirror_y else y), axis=1).astype(np.float32)


@dataclass(frozen=True)
class Tile:
    """A part of an image that goes through the network as an image of its own. All in network pixels of the image."""

    left: int
    top: int
    size: tuple[int, int]  # (width, height)
    bucket: tuple[int, int]  # (width, height) with padding
    inner: tuple[slice, slice]  # rows and columns, from `top` and `left`, that no other tile has in its inner part

    @property
    def whole(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        return slice(self.top, self.top + self.size[1]), slice(self.left, self.left + self.size[0])

    @property
    def geometry(self) -> ImageGeometry:
        """Of the tile, as of an image that is upright and not resized."""
        return ImageGeometry(self.size, 1, self.size, self.bucket)

    def network_from_tile(self, points: Points) -> Points:
        """(N, 2) pixels of the tile to network pixels of the image."""
        return points + np.array((self.left, self.top), np.float32)


def plan_tiles(size: tuple[int, int], side: int, overlap: int, divisor: int) -> list[Tile]:
    """Cuts an image evenly into tiles of one bucket. Their inner parts lie side by side and cover it.

    Bucket sides, and places of tiles, are multiples of the divisor: then a network sees in a tile what it sees in the
    whole image, as far as its receptive field does not reach beyond the tile.

    Args:
        size: (width, height) of the image at the network, pixels.
        side: of a tile at most, pixels; a side of the image that is shorter is not cut.
        overlap: what neighbours have in common at least, pixels. Their inner parts meet in the middle of it.
        divisor: of the model, pixels.

    Returns:
        Row by row.
    """
    side = max(side // divisor, 1) * divisor
    columns, rows = (_cuts(length, side, overlap, divisor) for length in size)
    width, height = (-(-min(side, length) // divisor) * divisor for length in size)
    return [
        Tile(left, top, (right - left, bottom - top), (width, height), (inner_rows, inner_columns))
        for top, bottom, inner_rows in rows
        for left, right, inner_columns in columns
    ]


def _cuts(length: int, side: int, overlap: int, divisor: int) -> list[tuple[int, int, slice]]:
    """Start and end of each part of a length, and its inner part, from its start."""
    step = max((side - overlap) // divisor, 1) * divisor  # the widest
    beyond = max(length - side, 0)  # what a first part leaves
    steps = -(-beyond // step)
    starts = [-(-beyond * i // (max(steps, 1) * divisor)) * divisor for i in range(steps + 1)]
    ends = [min(start + side, length) for start in starts]
    seams = [0, *((end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)), length]
    inner = (
        slice(first - start, last - start)
        for start, (first, last) in zip(starts, itertools.pairwise(seams), strict=True)
    )
    return list(zip(starts, ends, inner, strict=True))


def upright_size(raw_size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the upright image, by EXIF orientation."""
    width, height = raw_size
    return (height, width) if _ORIENTATIONS[orientation][0] else (width, height)


def orient(raw: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (H, W, ...) as the sensor stored them to the upright image, by EXIF orientation."""
    transposed, mirror_x, mirror_y = _ORIENTATIONS[orientation]
    image = raw.swapaxes(0, 1) if transposed else raw
    image = image[:, ::-1] if mirror_x else image
    return np.ascontiguousarray(image[::-1] if mirror_y else image)


def undo_orientation(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The inverse of `orient`: quarter turns undo each other, the others undo themselves."""
    return orient(upright, {6: 8, 8: 6}.get(orientation, orientation))


def normalised_from_network(points: Points, bucket: tuple[int, int]) -> Points:
    """(N, 2) network pixels to [-1, 1], whose ends are the outer edges of the padded bucket: what networks take."""
    return (points * (2.0 / np.asarray(bucket, np.float32)) - 1.0).astype(np.float32)


def centred_upright(points: Points, raw_size: tuple[int, int], orientation: int) -> Points:
    """(N, 2) raw pixels to what LightGlue takes: from the centre of the upright image, over half its longer side.

    Args:
        points: x, y.
        raw_size: (width, height).
        orientation: EXIF, 1 to 8.
    """
    longer = max(raw_size)
    whole = plan_geometry(raw_size, orientation, longer, 1)  # not resized
    half = np.array(whole.oriented_size, np.float32) / 2
    return ((whole.upright_from_raw(points) - half) * np.float32(2 / longer)).astype(np.float32)


def network_from_output(points: Points, bucket: tuple[int, int], first_pixel: float, *, normalised: bool) -> Points:
    """(N, 2) as a network from elsewhere gives them, to network pixels.

    Args:
        points: x, y.
        bucket: (width, height) of the padded image that it saw.
        first_pixel: where it puts the centre of the top-left pixel: at (0, 0) or at (0.5, 0.5).
        normalised: -1 to 1 instead of pixels, between the outer edges of the image where `first_pixel` is 0.5, between
            the centres of its first and last pixels where it is 0.
    """
    if normalised:
        points = (points + 1) / 2 * (np.asarray(bucket, np.float32) + (2 * first_pixel - 1))
    return (points + (0.5 - first_pixel)).astype(np.float32)


def rotated_by_quarters(points: Points, rotations: int) -> Points:
    """(..., 2) in [-1, 1] to where they are when the image is turned as `numpy.rot90` rotates it, `rotations` times."""
    for _ in range(rotations % 4):
        points = np.stack((points[..., 1], -points[..., 0]), axis=-1)
    return points


def plan_geometry(raw_size: tuple[int, int], orientation: int, size: int, divisor: int) -> ImageGeometry:
    """Chooses the network size and the bucket of an image.

    Args:
        raw_size: (width, height) of the sensor's pixels.
        orientation: EXIF orientation, 1 to 8.
        size: long side at the network, pixels. Smaller images keep their pixels.
        divisor: bucket sides are multiples of it, pixels.
    """
    width, height = upright_size(raw_size, orientation)
    scale = min(1.0, size / max(width, height))
    network = max(1, round(width * scale)), max(1, round(height * scale))
    bucket = _bucket(network, size, divisor)
    # one pixel over the bucket is squeezed into it: coordinates stay exact, each axis has its own scale
    network = min(network[0], bucket[0]), min(network[1], bucket[1])
    return ImageGeometry(raw_size, orientation, network, bucket)


def _bucket(network: tuple[int, int], size: int, divisor: int) -> tuple[int, int]:
    def up(value: float) -> int:
        return int(-(-value // divisor)) * divisor

    width, height = network
    if max(width, height) < size:  # not resized: its own bucket
        return up(width), up(height)
    # one pixel of tolerance: 3264 x 2450 is 4:3 too
    short = min(side for aspect in ASPECTS if (side := up(size / aspect)) >= min(network) - 1)
    return (up(size), short) if width >= height else (short, up(size))
