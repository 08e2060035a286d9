"""Photographs and masks for other programs.

COLMAP works on the pixels as they are stored, before EXIF orientation. Some readers turn an image by its EXIF, others
do not. What is written here has no orientation, so that all of them see the pixels that the model was made from.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import NothingDone, SfmMatchError, UsageError, quoted
from sfm_match.images.files import ImageError, decode, find_mask, is_heif, is_writable, read_header, read_mask
from sfm_match.job.cores import cores
from sfm_match.results import Results

if TYPE_CHECKING:
    import pycolmap

_AS_JPEG = ".jpg"  # added to the name of a HEIC or AVIF
_PLAIN = ("L", "RGB", "RGBA")  # Pillow's modes that every reader of 8-bit images takes
_LOSSLESS_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100: without loss

Pixels = NDArray[np.uint8]


def for_each_image(work: Callable[["pycolmap.Image"], None], images: Iterable["pycolmap.Image"]) -> None:
    """Calls `work` for many images, in threads. Raises the first error."""
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(work, images):
            pass


def written_name(name: str) -> str:
    """Under which an image is written: HEIC and AVIF, which few programs read, as JPEG.

    Raises:
        UsageError: it would lead out of the folder that is written to, as names of a model from elsewhere may.
    """
    check_name(name)
    return name + _AS_JPEG if is_heif(name) else name


def check_name(name: str) -> None:
    """Raises UsageError where an image's name is not that of a file below a folder, on any system."""
    path = name.replace("\\", "/")
    if ".." in path.split("/") or path.startswith("/") or re.match("[A-Za-z]:/", path) or not is_writable(name):
        raise UsageError(f"image {quoted(name)}: not written; its name must be a plain path below a folder")


def read_photograph(path: Path, camera: "pycolmap.Camera") -> Pixels:
    """(H, W, 3) uint8 RGB, the raw pixels.

    Raises:
        NothingDone: it cannot be read.
        UsageError: it has not the size of its camera.
    """
    _check(path, camera)
    try:
        return decode(path)
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error


def copy_photograph(path: Path, target: Path, camera: "pycolmap.Camera") -> None:
    """The same file, or where not every reader sees its raw pixels, these as 8-bit RGB. Raises as `read_photograph`."""
    from PIL import Image

    orientation = _check(path, camera)
    with Image.open(path) as image:
        plain = image.mode in _PLAIN and orientation == 1 and path.suffix == target.suffix
    if plain:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    else:
        write_pixels(target, read_photograph(path, camera))


def _check(path: Path, camera: "pycolmap.Camera") -> int:
    """The EXIF orientation of a photograph that fits its camera."""
    try:
        header = read_header(path)
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error
    if (header.width, header.height) != (camera.width, camera.height):
        raise UsageError(
            f"{path}: {header.width} x {header.height} pixels now, {camera.width} x {camera.height} in the model; "
            "run `sfm-match run` again"
        )
    return header.orientation


def write_pixels(path: Path, pixels: Pixels) -> None:
    """Writes (H, W, 3) RGB or (H, W) grey, in the format of the path's suffix; JPEGs at COLMAP's quality, 100.

    Raises:
        SfmMatchError: it cannot be written.
    """
    import pycolmap

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".webp":  # pycolmap's wheels have no writer for it
        written = cv2.imwrite(str(path), pixels[..., ::-1], _LOSSLESS_WEBP)
    else:  # OpenCV and Pillow crash as they write PNGs, where pycolmap was imported before them
        written = pycolmap.Bitmap.from_array(pixels).write(str(path))
    if not written:
        raise SfmMatchError(f"{path}: cannot be written (a full disk?)")


def mask_name(name: str) -> str:
    """COLMAP's name of an image's mask."""
    return f"{name}.png"


def raw_mask(results: Results, name: str, camera: "pycolmap.Camera") -> Pixels:
    """(H, W) of the photograph's size: 0 where its mask is black, else 255. All 255 for an image without a mask.

    Raises:
        NothingDone: the mask cannot be read, or does not fit.
    """
    size: Any = (camera.width, camera.height)
    path = find_mask(results.mask_folder, name)
    if path is None:
        return np.full(size[::-1], 255, np.uint8)
    try:
        mask = read_mask(path, size)
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT))
