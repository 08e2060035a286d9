"""Small pictures of the photographs, upright, as JPEG.

They are kept beside the report: of thousands of photographs, reading all again would take minutes whenever one changed.
They are in a zip file, which has a checksum for each; what cannot be read is made again.
"""

import contextlib
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2

from sfm_match.images.coordinates import orient
from sfm_match.images.files import Header, ImageError, decode, signature_of
from sfm_match.images.loader import resize
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.cores import cores
from sfm_match.reporting.packing import THUMBNAIL_BYTES, spread
from sfm_match.store.shard import replacing

# pixels of the long side: few, so that a few more photographs do not change all pictures
_SIDES = (640, 512, 400, 320, 256, 200, 160, 128, 100, 80, 64)
_BYTES_PER_PIXEL = 0.3  # of a JPEG of this quality, with much detail
_ASPECT = 0.75
_QUALITY = 70
_MADE = 1  # raise it when the same photograph comes to give another picture
_DAMAGE = (OSError, zipfile.BadZipFile, ValueError, RuntimeError, LookupError, EOFError, struct.error)


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of some images."""

    side: int  # of the long side, pixels
    pictures: dict[str, bytes]  # image -> JPEG
    missing: int  # images that could not be read
    left_out: int  # images whose pictures would have made the page too large


def thumbnails(
    folder: Path, headers: Mapping[str, Header], kept: Path | None = None, budget: int = THUMBNAIL_BYTES
) -> Thumbnails:
    """A picture of each image, as large as the budget allows.

    Args:
        folder: of the photographs.
        headers: by image name.
        kept: file of those of last time: what they are the pictures of is not read again. It is written if it may be.
        budget: bytes of all pictures.
    """
    side = side_of(len(headers), budget)
    # of very many, those that fit: the others would be read, and held in memory, for nothing
    places = set(spread(len(headers), int(budget / _bytes_of(side))).tolist())
    chosen = [name for place, name in enumerate(headers) if place in places]
    keys = dict(_keys(folder, chosen, side))
    known = _read(kept, keys) if kept is not None else {}
    fresh = [name for name in keys if name not in known]
    made = WorkerThreads(cores()).each(fresh, lambda name: _thumbnail(folder, name, headers[name], side=side))
    found, before = known, len(known)
    found.update((name, jpeg) for name, jpeg in made if jpeg is not None)
    if kept is not None and len(found) > before:
        _write(kept, keys, found)
    pictures: dict[str, bytes] = {}
    left_out, total = len(headers) - len(chosen), 0
    for name in chosen:
        if name not in found:
            continue
        if total + len(found[name]) > budget:
            left_out += 1
        else:
            total += len(found[name])
            pictures[name] = found[name]
    return Thumbnails(side, pictures, len(chosen) - len(found), left_out)


def side_of(count: int, budget: int) -> int:
    """The long side of that many pictures, pixels."""
    each = budget / max(count, 1)
    return next((side for side in _SIDES if _bytes_of(side) <= each), _SIDES[-1])


def _bytes_of(side: int) -> float:
    """Of a picture."""
    return side**2 * _ASPECT * _BYTES_PER_PIXEL


def _keys(folder: Path, names: Iterable[str], side: int) -> Iterator[tuple[str, bytes]]:
    """Of each photograph that is there: what its picture depends on."""
    for name in names:
        with contextlib.suppress(OSError):
            yield name, f"{_MADE} {side} {signature_of(folder / name)}".encode()


def _read(kept: Path, keys: Mapping[str, bytes]) -> dict[str, bytes]:
    """Image -> JPEG, of the pictures that are up to date and whole."""
    found: dict[str, bytes] = {}
    with contextlib.suppress(*_DAMAGE), zipfile.ZipFile(kept) as file:
        for one in file.infolist():
            if one.compress_type == zipfile.ZIP_STORED and one.comment == keys.get(one.filename):
                with contextlib.suppress(*_DAMAGE):
                    found[one.filename] = file.read(one)
    return found


def _write(kept: Path, keys: Mapping[str, bytes], pictures: Mapping[str, bytes]) -> None:
    """Where the disk is full or read-only, they are made again next time."""
    with contextlib.suppress(OSError), replacing(kept) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name in sorted(pictures):
            about = zipfile.ZipInfo(name)
            about.comment = keys[name]
            file.writestr(about, pictures[name])


def _thumbnail(folder: Path, name: str, header: Header, *, side: int) -> bytes | None:
    """None for a file that is gone, or that cannot be read."""
    scale = min(1.0, side / max(header.width, header.height))
    size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
    try:
        raw = decode(folder / name, size)
    except ImageError:
        return None
    small = orient(resize(raw, size, cv2.INTER_AREA), header.orientation)
    made, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if made else None
