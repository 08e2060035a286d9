"""What the EXIF of a photograph tells of its focal length and its place.

Pillow finds the EXIF of every format and reads its first directory. The two directories below are read here, because
Pillow decodes every tag of them, and we want a dozen: with it, the headers of 100,000 photographs take twice as long.
Tags and their types: CIPA DC-008, "Exchangeable image file format", and TIFF 6.0.
"""

import math
import struct
from typing import Any

_DETAILS, _GPS = 0x8769, 0x8825  # tags of the first directory that tell where the others are
_FOCAL, _FOCAL_35MM, _WIDTH_WHEN_TAKEN, _HEIGHT_WHEN_TAKEN = 0x920A, 0xA405, 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_NORTH, _LATITUDE, _EAST, _LONGITUDE, _BELOW, _ALTITUDE = 1, 2, 3, 4, 5, 6
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_FULL_FRAME_WIDTH_MM = 36.0
# 35 mm equivalents of the shortest and the longest lenses that photographs are taken with: Nikon's fisheye of 6 mm, the
# zooms of its Coolpix P1000 and P1100
SHORTEST_MM, LONGEST_MM = 6.0, 3000.0
LOWEST_M, HIGHEST_M = -12_000.0, 100_000.0  # the deepest sea, and the edge of space
_HEAD = b"Exif\0\0"  # of the block in a JPEG
_ENTRY = 12  # bytes: tag, type, count, and the values themselves or where they are
_MOST = 64  # bytes of a tag's values; of those we want, none has more
_WANTED = {
    _DETAILS: {_FOCAL, _FOCAL_35MM, _WIDTH_WHEN_TAKEN, _HEIGHT_WHEN_TAKEN, _PLANE_RESOLUTION, _PLANE_UNIT},
    _GPS: {_NORTH, _LATITUDE, _EAST, _LONGITUDE, _BELOW, _ALTITUDE},
}
# TIFF type -> (bytes of a value, struct's letter)
_TYPES = {1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 9: (4, "i"), 10: (8, "ii")}

Tags = dict[int, Any]


def details_of(image: Any, exif: Any) -> Tags:
    """What was the camera's doing. `exif` is Pillow's `image.getexif()`. Raises what damage makes of it."""
    return _below(image, exif, _DETAILS)


def gps_of(image: Any, exif: Any) -> Tags:
    """Where it was. As in `details_of`."""
    return _below(image, exif, _GPS)


def _below(image: Any, exif: Any, pointer: int) -> Tags:
    block, offset = image.info.get("exif"), exif.get(pointer)
    if not isinstance(block, bytes) or not isinstance(offset, int):  # a TIFF, or a PNG of an older writer
        return dict(exif.get_ifd(pointer))
    while block.startswith(_HEAD):  # some cameras write it twice
        block = block[len(_HEAD) :]
    return read_directory(block, offset, _WANTED[pointer])


def read_directory(block: bytes, offset: int, wanted: set[int]) -> Tags:
    """The wanted tags of one directory.

    Args:
        block: from the byte order on, as in a TIFF file.
        offset: of the directory.
        wanted: tags. Of other types than integers, fractions and ASCII, or damaged, they are left out.

    Returns:
        A number, a string, or a tuple of numbers where a tag has several; fractions as float, NaN for x / 0.
    """
    order = ">" if block[:2] == b"MM" else "<"
    if offset + 2 > len(block):
        return {}
    (count,) = struct.unpack_from(f"{order}H", block, offset)
    start = offset + 2
    entries = block[start : start + count * _ENTRY]
    found: Tags = {}
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // _ENTRY * _ENTRY]):
        if tag not in wanted or tag in found or kind not in _TYPES:
            continue
        size, letters = _TYPES[kind]
        total = size * number
        if not 0 < total <= _MOST:
            continue
        if total > len(value):
            (at,) = struct.unpack(f"{order}I", value)
            value = block[at : at + total]
        if len(value) < total:
            continue
        found[tag] = _value(value[:total], order, letters, number)
    return found


def _value(data: bytes, order: str, letters: str, number: int) -> Any:
    if letters == "s":
        return data.split(b"\0")[0].decode("latin-1")
    values: tuple[float, ...] = struct.unpack(order + letters * number, data)
    if len(letters) == 2:
        values = tuple(a / b if b else float("nan") for a, b in zip(values[::2], values[1::2], strict=True))
    return values[0] if number == 1 else values


def focal_from_exif(exif: dict[int, Any], width: int, height: int) -> tuple[float | None, str]:
    """Focal length in pixels, from the 35 mm equivalent or from the sensor's resolution.

    The 35 mm equivalent refers to a frame 36 mm wide. EXIF of a resized photograph still tells the size it was taken
    at, so that resolution is that of the original pixels. A focal length that no lens has is dropped. 0 is EXIF's word
    for one that is not known.

    Returns:
        The focal length, or None; and what was dropped, in words, else "".
    """
    long_side, dropped = max(width, height), ""
    for equivalent in (_number(exif, _FOCAL_35MM), _equivalent(exif, long_side)):
        if SHORTEST_MM <= equivalent <= LONGEST_MM:
            return equivalent / _FULL_FRAME_WIDTH_MM * long_side, dropped
        if equivalent != 0 and not dropped:
            bounds = f"{SHORTEST_MM:g} to {LONGEST_MM:,.0f} mm"
            dropped = f"its EXIF says a focal length of {equivalent:g} mm (35 mm equivalent), lenses have {bounds}"
    return None, dropped


def _equivalent(exif: dict[int, Any], long_side: int) -> float:
    """The 35 mm equivalent by the resolution of the sensor, 0 where it is not told."""
    unit = _MM_PER_UNIT.get(int(_number(exif, _PLANE_UNIT, unknown=0.0)) or 2)
    resolution = _number(exif, _PLANE_RESOLUTION, unknown=0.0)
    if unit is None or resolution <= 0:
        return 0.0
    sides = (_number(exif, tag, unknown=0.0) for tag in (_WIDTH_WHEN_TAKEN, _HEIGHT_WHEN_TAKEN))
    long_side_when_taken = max(sides) or long_side
    return _number(exif, _FOCAL) * resolution / unit / long_side_when_taken * _FULL_FRAME_WIDTH_MM


def _number(exif: dict[int, Any], tag: int, *, unknown: float = math.nan) -> float:
    """Of a tag: 0 where it is not there, `unknown` where it is there and is no number."""
    try:
        value = float(exif.get(tag) or 0)
    except (TypeError, ValueError, OverflowError):
        return unknown
    except ZeroDivisionError:  # Pillow's fraction, x / 0
        return unknown
    return value if math.isfinite(value) else unknown


def location_from_exif(gps: dict[int, Any]) -> tuple[tuple[float, float, float | None] | None, str]:
    """Latitude and longitude in degrees, north and east positive, and altitude in metres where it is known.

    None where there is no position, or one that cannot be: phones without a fix write 0, 0.

    Returns:
        The position, or None; and what was dropped, in words, else "".
    """

    def angle(value: int, reference: int, negative: str) -> float:
        degrees, minutes, seconds = (float(part) for part in gps[value])
        size = degrees + minutes / 60 + seconds / 3600
        return -size if str(gps.get(reference, "")).strip("\0 ").upper() == negative else size

    try:
        latitude, longitude = angle(_LATITUDE, _NORTH, "S"), angle(_LONGITUDE, _EAST, "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None, ""
    if latitude == 0 and longitude == 0:
        return None, ""
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # true for NaN, too
        return None, f"its EXIF says a position of {latitude:g}, {longitude:g} degrees, which is nowhere"
    try:
        altitude = float(gps[_ALTITUDE])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return (latitude, longitude, None), ""
    altitude = -altitude if gps.get(_BELOW) in (1, b"\x01") else altitude
    if LOWEST_M <= altitude <= HIGHEST_M:
        return (latitude, longitude, altitude), ""
    return (latitude, longitude, None), f"its EXIF says a height of {altitude:g} m"
