"""Picture files: where they may be written, how, and text in them."""

import bisect
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError, UsageError, quoted
from sfm_match.job.outputs import check_output
from sfm_match.signals import temporary_folder
from sfm_match.store.shard import replacing

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# of Okabe and Ito: told apart by colour-blind eyes, too
SKY_BLUE, VERMILLION = (86, 180, 233), (213, 94, 0)
BLUE, ORANGE, GREEN, PURPLE = (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)

SUFFIXES = (".png", ".jpg", ".jpeg")
_JPEG_QUALITY = 92


def check_picture(option: str, path: Path, *, inputs: Iterable[Path] = (), overwrite: bool) -> None:
    """Whether a picture may be written there (`check_output`).

    Raises:
        UsageError: a format that is not written, or what `check_output` raises.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{option} {quoted(path)}: must be a name that ends in {', '.join(SUFFIXES)}")
    check_output(path, option, inputs=inputs, overwrite=overwrite)


def write_picture(path: Path, pixels: Pixels) -> None:
    """Writes (H, W, 3) RGB, whole or not at all.

    Raises:
        SfmMatchError: it cannot be written.
    """
    try:
        content = _as_png(pixels) if path.suffix.lower() == ".png" else _as_jpeg(pixels)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise SfmMatchError(f"{path}: cannot be written: {error.strerror}") from error


def _as_png(pixels: Pixels) -> bytes:
    """By pycolmap: OpenCV and Pillow crash as they write PNGs, where pycolmap was imported before them.

    It writes files alone, and has a line of its own to say where it cannot: so they are files of ours.
    """
    import pycolmap

    with temporary_folder("sfm-match-") as folder:
        path = folder / "picture.png"
        if not pycolmap.Bitmap.from_array(np.ascontiguousarray(pixels)).write(str(path)):
            raise SfmMatchError(f"{folder}: a picture cannot be written there (a full disk?)")
        return path.read_bytes()


def _as_jpeg(pixels: Pixels) -> bytes:
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


class Pen:
    """Writes text into pixels."""

    def __init__(self, size: int) -> None:
        """
        Args:
            size: of the letters, pixels.
        """
        from PIL import ImageFont

        self._font = ImageFont.load_default(size)

    def width(self, text: str) -> int:
        """Of a text, pixels."""
        return int(self._font.getlength(self.drawable(text)))

    def drawable(self, text: str) -> str:
        """The text as the font has it: ASCII, without accents; ? for what has no likeness there, and line breaks."""
        plain = (unicodedata.normalize("NFKD", one)[0] for one in text)
        return "".join(one if " " <= one <= "~" else "?" for one in plain)

    def shortened(self, text: str, width: int) -> str:
        """The text, its middle left out where it is wider than that: names differ at their ends."""
        text = self.drawable(text)
        if self.width(text) <= width:
            return text

        def with_only(kept: int) -> str:
            return f"{text[: kept // 3]}...{text[len(text) - (kept - kept // 3) :]}"

        kept = bisect.bisect_right(range(1, len(text)), width, key=lambda kept: self.width(with_only(kept)))
        return with_only(kept) if kept else ""

    def write(self, pixels: Pixels, place: tuple[int, int], text: str, colour: Colour = INK) -> None:
        """Changes (H, W, 3) `pixels`: the text begins at `place`, its top left corner, x and y."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(pixels)
        ImageDraw.Draw(image).text(place, self.drawable(text), font=self._font, fill=colour)
        pixels[:] = np.asarray(image)
