"""The photographs: finding them, reading their headers, decoding them."""

import io
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import NothingDone, UsageError, quoted
from sfm_match.images.coordinates import ImageGeometry, plan_geometry, undo_orientation, upright_size
from sfm_match.images.exif import details_of, focal_from_exif, gps_of, location_from_exif
from sfm_match.job.log import LOGGER
from sfm_match.store.regular import of_the_process

_HEIC, _AVIF = {".heic", ".heif"}, {".avif"}
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".webp", ".bmp"} | _HEIC | _AVIF
# kinds of pictures that are not read: a folder's are counted, so that none is passed over in silence
_NOT_READ = {".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jxl", ".exr", ".hdr", ".tga", ".psd"}
_NOT_READ |= {".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"}
MIN_SIDE = 32  # pixels; below, there is nothing to detect
MAX_PIXELS = 1 << 30  # of an image or a mask
_LONGEST_NAME = 200  # characters of a camera's make or model
_STRIPE = 1 << 24  # pixels that are copied at once

StrPath = str | Path
Image = NDArray[np.uint8]
Decode = Callable[[Path, tuple[int, int] | None], Image]  # arguments and result of `decode`

_ORIENTATION, _MAKE, _MODEL = 0x0112, 0x010F, 0x0110  # tags of EXIF's first directory


class ImageError(Exception):
    """This image cannot be used; the message says why.

    `lasting` tells damage, which stays while the file does, from what another try may cure (a permission, a disk).
    """

    def __init__(self, message: str, *, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a file tells."""

    width: int  # raw pixels
    height: int  # raw pixels
    orientation: int = 1  # EXIF, 1 to 8
    camera: str = ""  # make and model, for grouping
    focal: float | None = None  # pixels, along the raw image
    location: tuple[float, float, float | None] | None = None  # EXIF GPS: latitude, longitude (degrees), altitude (m)
    dropped: str = ""  # what its EXIF says and cannot be, in words

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as the network sees it, raw pixels."""
        return upright_size((self.width, self.height), self.orientation)

    def geometry(self, size: int, divisor: int) -> ImageGeometry:
        """How the image gets to a network of this `--size` and this divisor of sides, pixels."""
        return plan_geometry((self.width, self.height), self.orientation, size, divisor)


class ScannedFile(NamedTuple):
    """One file of the folder: the name is POSIX, relative to the folder."""

    name: str
    signature: str  # size and time of the file (and of its mask): when it changes, the image is new
    error: str | None = None  # why the name itself cannot be used
    masked: bool = False  # whether a mask was found


def files_below(folder: Path, suffixes: Container[str], skipped: Iterable[Path] = ()) -> Iterator[tuple[str, str]]:
    """Name and path of every file with one of some suffixes. Hidden ones are passed over.

    Links are followed, each folder once.

    Args:
        folder: to search, with its subfolders.
        suffixes: in lower case, with their points.
        skipped: folders that are not searched, and files that are left out.

    Raises:
        UsageError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(f"--images {folder}: {error.filename}: {error.strerror}")

    left_out = {os.fspath(path) for path in skipped}
    seen = {_identity(path) for path in map(Path, left_out) if path.is_dir()}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        identity = _identity(Path(parent))
        if identity in seen:  # a link back, or one that is skipped
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        below = Path(parent).relative_to(folder).as_posix()
        for file in files:
            # as strings: paths of a hundred thousand files take seconds to make
            if file.startswith(".") or _suffix(file) not in suffixes:
                continue
            path = f"{parent}{os.sep}{file}"
            if path not in left_out:
                yield (file if below == "." else f"{below}/{file}"), path


def _suffix(name: str) -> str:
    """As `Path.suffix` of a file that is not hidden, in lower case."""
    _, point, last = name.rpartition(".")
    return f".{last}".lower() if point else ""


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def scan(folder: Path, masks: Path | None = None) -> list[ScannedFile]:
    """Every image file under `folder`, by name. Masks inside the folder of images are no photographs.

    Raises:
        UsageError: no such folder, or one below it cannot be read.
        NothingDone: no file with an image's suffix in it.
    """
    found = sorted(scanned(folder, masks), key=lambda file: file.name)
    if not found:
        raise NothingDone(f"{folder}: no image in it (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def scanned(folder: Path, masks: Path | None = None) -> Iterator[ScannedFile]:
    """As `scan`, in any order, one at a time; none, where there is none."""
    if not folder.is_dir():
        raise UsageError(f"--images {folder}: no such folder")
    passed_over = Counter[str]()
    for name, path in files_below(folder, SUFFIXES | _NOT_READ, () if masks is None else (masks,)):
        suffix = _suffix(name)
        if suffix in _NOT_READ:
            passed_over[suffix] += 1
            continue
        if not is_writable(name):
            reason = "a name with a TAB, a line break, a control character or bytes that are no UTF-8; rename the file"
            yield ScannedFile(ascii(name), "", reason)
            continue
        mask = find_mask(masks, name)
        signature = signature_of(path) + (f" mask {signature_of(mask)}" if mask else "")
        yield ScannedFile(name, signature, masked=mask is not None)
    if passed_over:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(passed_over.items()))
        LOGGER.warning("%s: passed over %s: not read; convert them to JPEG, PNG or TIFF", quoted(folder), kinds)


def is_writable(name: str) -> bool:
    """Whether a name can be written to pairs.txt and in the database."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return name.isprintable() or not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name)


def signature_of(path: StrPath) -> str:
    """Size and time of a file: when it changes, the file is new."""
    try:
        status = os.stat(path)  # noqa: PTH116 - of a string, three times as fast as of a path
    except OSError:  # a dangling link: reading it will say so
        return "unreadable"
    return f"{status.st_size}:{status.st_mtime_ns}"


def find_mask(masks: Path | None, name: str) -> Path | None:
    """The mask of an image: the most specific one.

    Args:
        masks: a file, for all images, or a folder with `NAME.png` (COLMAP's), or the name with .png for its suffix, or
            `FOLDER.png` for the images of a folder without masks of their own: a camera's.
        name: of the image.
    """
    if masks is None or masks.is_file():
        return masks
    path = PurePosixPath(name)
    candidates = [f"{name}.png", str(path.with_suffix(".png")), *(f"{folder}.png" for folder in path.parents[:-1])]
    return next((mask for one in candidates if (mask := masks / one).is_file()), None)


def read_header(path: Path) -> Header:
    """Size, orientation, camera and focal length, without decoding.

    Raises:
        ImageError: not an image, empty, or too small.
        OSError: as `decode`.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        width, height = image.size
        if image.format == "TIFF" and orientation >= 5:  # Pillow reports the upright size
            width, height = height, width
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"{width} x {height} pixels; the shorter side must have at least {MIN_SIDE}")
        try:
            exif = image.getexif()
            details, gps = details_of(image, exif), gps_of(image, exif)
        except Exception:  # noqa: BLE001 - damaged EXIF; the image may be fine
            return Header(width, height, orientation)
    camera = " ".join(str(exif.get(tag, ""))[:_LONGEST_NAME].strip("\0 ") for tag in (_MAKE, _MODEL)).strip()
    focal, wrong_focal = focal_from_exif(details, width, height)
    location, wrong_place = location_from_exif(gps)
    dropped = "; ".join(filter(None, (wrong_focal, wrong_place)))
    return Header(width, height, orientation, camera, focal, location, dropped)


def _orientation(image: Any) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF; the image may be fine
        return 1
    return int(orientation) if orientation in range(1, 9) else 1


def decode(path: Path, least: tuple[int, int] | None = None) -> Image:
    """Decodes an image to its raw pixels.

    8 and 16 bit, grey, palette, RGBA (alpha is dropped) and CMYK all become 8-bit RGB.

    Args:
        path: the file.
        least: (width, height) that will do, raw pixels. A JPEG whose sides can be divided is then decoded at 1/2, 1/4
            or 1/8, at least so large: its decoder averages as it goes.

    Returns:
        (H, W, 3) uint8 RGB, not oriented.

    Raises:
        ImageError: the file is truncated, damaged or no image.
        OSError: this process may open no more files, or gets no memory.
    """
    with _opened(path, whole=True) as image:
        try:
            # Pillow turns TIFFs upright as it loads them, and only TIFFs; raw pixels are what we promise
            turned_by_pillow = _orientation(image) if image.format == "TIFF" else 1
            if least is not None and image.format == "JPEG":
                image.draft(None, reduced(image.size, least))
            pixels = _to_rgb(image)
        except Exception as error:  # a damaged file can raise anything in a decoder
            if of_the_process(error):
                raise
            lasting = not isinstance(error, MemoryError) and getattr(error, "errno", None) is None
            raise ImageError(f"cannot be decoded: {_one_line(error)}", lasting=lasting) from error
    return undo_orientation(pixels, turned_by_pillow)


def reduced(size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """The smallest of a JPEG's sizes that is at least `least`; only whole divisions, so that pixels stay aligned."""
    for divisor in (8, 4, 2):
        width, height = size[0] // divisor, size[1] // divisor
        if (width * divisor, height * divisor) == size and width >= least[0] and height >= least[1]:
            return width, height
    return size


def _to_rgb(image: Any) -> Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(np.asarray(image))
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return _in_stripes(image if image.mode == "RGB" else image.convert("RGB"))  # what is RGB would be copied once more


def _in_stripes(image: Any) -> Image:
    """(H, W, 3) of an RGB image. Pillow would copy a large one twice on its way to an array."""
    width, height = image.size
    rows = max(1, _STRIPE // width)
    if height <= rows:
        return np.asarray(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _from_deep_grey(grey: NDArray[Any]) -> Image:
    """16-bit, 32-bit or float grey to 8-bit RGB. Integers are taken as 16 bit, floats as 0 to 1 or 0 to 255.

    NaN and negative infinity, which some programs write where nothing was measured, are black; infinity is white.
    """
    top = 65535.0
    if grey.dtype.kind == "f":
        top = 1.0 if float(grey.max(initial=0, where=np.isfinite(grey))) <= 1.0 else 255.0
        grey = np.nan_to_num(grey, nan=0.0, posinf=top, neginf=0.0)
    eight = np.clip(grey.astype(np.float32) * (255.0 / top), 0, 255).round().astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


def is_heif(name: str) -> bool:
    """Whether an image's name is that of a HEIC or AVIF, which COLMAP and many other programs do not read."""
    return PurePosixPath(name).suffix.lower() in _HEIC | _AVIF


@cache
def _heic_opener() -> bool:
    """Teaches Pillow HEIC, where the extra `heic` is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _unidentified(path: Path) -> str:
    """Why Pillow does not know a file."""
    from PIL import features

    suffix = path.suffix.lower()
    if (suffix in _HEIC and not _heic_opener()) or (suffix in _AVIF and not features.check("avif")):
        return f"{suffix[1:].upper()} needs a package that is not installed: pip install 'sfm-match[heic]'"
    return "not an image: no known format"


def _opened(path: Path, *, whole: bool = False) -> Any:
    """The image, its header read. `whole`: from memory, because Pillow maps some turned TIFFs with swapped sides."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    Pillow.MAX_IMAGE_PIXELS = None  # the limit is ours, and is said in our words
    _heic_opener()
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged EXIF is no news to the user
    try:
        if path.stat().st_size == 0:
            raise ImageError("the file is empty")
        is_tiff = path.suffix.lower() in (".tif", ".tiff")
        image = Pillow.open(io.BytesIO(path.read_bytes()) if whole and is_tiff else path)
        width, height = image.size
        if width * height > MAX_PIXELS:
            image.close()
            raise ImageError(f"{width} x {height} pixels; at most 2^30 can be decoded")
        return image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_unidentified(path)) from error
    except Exception as error:  # as in decode
        if of_the_process(error):
            raise
        lasting = getattr(error, "errno", None) is None
        raise ImageError(f"cannot be opened: {_one_line(error)}", lasting=lasting) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_mask(path: Path, raw_size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask at its own resolution, in raw pixels: 255 where keypoints are wanted, 0 where the mask is black.

    Raises:
        ImageError: the mask cannot be read, or its aspect is not that of the image's `raw_size` (width, height).
    """
    try:
        visible = decode(path).max(axis=2)
    except ImageError as error:
        raise ImageError(f"mask {path.name}: {error}", lasting=error.lasting) from error
    height, width = visible.shape
    if abs(width * raw_size[1] - height * raw_size[0]) > width + height + sum(raw_size):
        raise ImageError(f"mask {path.name}: {width} x {height} pixels for an image of {raw_size[0]} x {raw_size[1]}")
    return np.where(visible > 0, np.uint8(255), np.uint8(0))
