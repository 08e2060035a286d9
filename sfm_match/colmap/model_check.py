"""Whether a COLMAP model's files can be read, before pycolmap reads them.

Of a count that is wrong pycolmap asks for all the memory there is, or reads without end. Here each count is held
against what the file has; that tracks and poses make sense pycolmap says itself.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.colmap import hush_colmap
from sfm_match.errors import SfmMatchError

if TYPE_CHECKING:
    import pycolmap

_FILES = ("cameras", "images", "points3D", "rigs", "frames")
_NEEDED = _FILES[:3]
_CAMERA, _IMAGE, _POINT = struct.Struct("<IiQQ"), struct.Struct("<I7dI"), struct.Struct("<Q3d3BdQ")
_RIG, _FRAME = struct.Struct("<II"), struct.Struct("<II7dI")
_OBSERVATION, _TRACK, _DATA, _SENSOR, _PLACE = 24, 8, 16, 8, 56  # bytes
_LONGEST_NAME = 4096


class DamagedModel(SfmMatchError):
    """Files that are no COLMAP model; `reason` says why, without the folder's name."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{folder}: no COLMAP model to be read there ({reason})")


def load(folder: Path) -> "pycolmap.Reconstruction":
    """A model in binary or text form. Raises DamagedModel."""
    import pycolmap

    check_structure(folder)
    hush_colmap()
    try:
        return pycolmap.Reconstruction(str(folder))
    except (RuntimeError, ValueError, LookupError, MemoryError, UnicodeDecodeError) as error:
        # COLMAP says first where in its source it is
        said = " ".join(str(error).split()).rpartition("] ")[2]
        raise DamagedModel(folder, said or type(error).__name__) from error


def check_structure(folder: Path) -> None:
    """Holds the counts of a model's files against their sizes. Raises DamagedModel."""
    suffix = next((end for end in ("bin", "txt") if all(_is_file(folder, name, end) for name in _NEEDED)), None)
    if suffix is None:
        raise DamagedModel(folder, "cameras, images, points3D; .bin or .txt")
    for name in _FILES:
        path = folder / f"{name}.{suffix}"
        if not path.exists():
            continue
        if not path.is_file():
            raise DamagedModel(folder, f"{path.name} is no file")
        if suffix == "bin":
            try:
                walk(path.read_bytes(), _READERS[name])
            except (struct.error, ValueError, OSError) as error:
                raise DamagedModel(folder, f"{path.name} is damaged") from error


def _is_file(folder: Path, name: str, suffix: str) -> bool:
    return (folder / f"{name}.{suffix}").is_file()


def walk(content: bytes, following: Callable[[bytes, int], int]) -> None:
    """Goes through a binary file of a model: `following` tells where what comes next begins.

    Raises:
        ValueError, struct.error: it does not end with the last of what it counts.
    """
    (count,) = struct.unpack_from("<Q", content)
    place = 8
    for _ in range(count):
        place = following(content, place)
        if place > len(content):
            break
    if place != len(content):
        raise ValueError("of another length")


def _camera(content: bytes, place: int) -> int:
    import pycolmap

    _, model, _, _ = _CAMERA.unpack_from(content, place)
    try:
        params = pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(model), 1.0, 1, 1).params
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return place + _CAMERA.size + 8 * len(params)


def keypoints_of(content: bytes, place: int) -> tuple[int, int, int]:
    """Of the image that begins there in images.bin: image_id, where its keypoints begin, and how many they are."""
    number, *_ = _IMAGE.unpack_from(content, place)
    end = content.index(0, place + _IMAGE.size, place + _IMAGE.size + _LONGEST_NAME)
    (count,) = struct.unpack_from("<Q", content, end + 1)
    return number, end + 9, count


def _image(content: bytes, place: int) -> int:
    _, begin, count = keypoints_of(content, place)
    return begin + _OBSERVATION * count


def _point(content: bytes, place: int) -> int:
    return place + _POINT.size + _TRACK * int(_POINT.unpack_from(content, place)[-1])


def _rig(content: bytes, place: int) -> int:
    _, sensors = _RIG.unpack_from(content, place)
    place += _RIG.size + (_SENSOR if sensors else 0)
    for _ in range(int(sensors) - 1):
        place += _SENSOR + 1 + (_PLACE if content[place + _SENSOR : place + _SENSOR + 1] == b"\1" else 0)
        if place > len(content):
            break
    return place


def _frame(content: bytes, place: int) -> int:
    return place + _FRAME.size + _DATA * int(_FRAME.unpack_from(content, place)[-1])


_READERS = {"cameras": _camera, "images": _image, "points3D": _point, "rigs": _rig, "frames": _frame}
