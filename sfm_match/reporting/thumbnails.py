"""Small pictures of the photographs, upright, as JPEG."""

import base64
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from sfm_match.images.coordinates import orient
from sfm_match.images.files import Header, ImageError, decode
from sfm_match.images.loader import resize
from sfm_match.reporting.packing import THUMBNAIL_BYTES

_SIDES = (64, 640)  # pixels of the long side
_BYTES_PER_PIXEL = 0.3  # of a JPEG of this quality, with much detail
_ASPECT = 0.75
_QUALITY = 70


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of some images."""

    side: int  # of the long side, pixels
    pictures: dict[str, str]  # image -> JPEG as base64
    missing: int  # images that could not be read
    left_out: int  # images whose pictures would have made the page too large


def thumbnails(folder: Path, headers: Mapping[str, Header], budget: int = THUMBNAIL_BYTES) -> Thumbnails:
    """A picture of each image, as large as the budget allows.

    Args:
        folder: of the photographs.
        headers: by image name.
        budget: bytes of all pictures.
    """
    side = side_of(len(headers), budget)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(partial(_thumbnail, folder, side=side), headers, headers.values()))
    pictures, missing, left_out, total = {}, 0, 0, 0
    for name, jpeg in zip(headers, made, strict=True):
        if jpeg is None:
            missing += 1
        elif total + len(jpeg) > budget:
            left_out += 1
        else:
            total += len(jpeg)
            pictures[name] = base64.b64encode(jpeg).decode("ascii")
    return Thumbnails(side, pictures, missing, left_out)


def side_of(count: int, budget: int) -> int:
    """The long side of that many pictures, pixels."""
    pixels = budget / max(count, 1) / _BYTES_PER_PIXEL
    return int(min(max((pixels / _ASPECT) ** 0.5, _SIDES[0]), _SIDES[1]))


def _thumbnail(folder: Path, name: str, header: Header, *, side: int) -> bytes | None:
    """None for a file that is gone, or that cannot be read."""
    scale = min(1.0, side / max(header.width, header.height))
    size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
    try:
        raw = decode(folder / name, size)
    except (ImageError, OSError):
        return None
    small = orient(resize(raw, size, cv2.INTER_AREA), header.orientation)
    made, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if made else None
