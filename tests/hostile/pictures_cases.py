"""Pictures that are damaged, odd or lie about themselves, beside good ones: each is used, or has its line."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from campaign.isolated import Finished
from hostile import small_job
from hostile.case import Case
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

USED = frozenset({0, 1})
_NONE = IFDRational(1, 0)  # not a number


def _picture(size: tuple[int, int] = (160, 120)) -> Image.Image:
    first = sorted((small_job.base() / "images").iterdir())[0]
    return Image.open(first).convert("RGB").resize(size)


def _saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def _array(values: np.ndarray, kind: str = "TIFF") -> bytes:
    return _saved(Image.fromarray(values), kind)


def _grey() -> np.ndarray:
    return np.asarray(_picture().convert("L"), np.float32)


def _with(values: np.ndarray, *places: float) -> np.ndarray:
    values = values.copy()
    for row, value in enumerate(places):
        values[row, row] = value
    return values


def _exif(**entries: Any) -> bytes:
    picture = _picture()
    exif = picture.getexif()
    inner = exif.get_ifd(0x8769)
    gps = exif.get_ifd(0x8825)
    for name, value in entries.items():
        kind, _, tag = name.partition("_")
        {"e": exif, "i": inner, "g": gps}[kind][int(tag, 16)] = value
    if inner:
        exif[0x8769] = inner
    if gps:
        exif[0x8825] = gps
    return _saved(picture, "JPEG", exif=exif, quality=95)


def _png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _bmp(width: int, height: int, offset: int = 54) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, offset, 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
        + bytes(99)
    )


def _jpeg_size(width: int, height: int) -> bytes:
    content = bytearray(_saved(_picture(), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _animated(kind: str) -> bytes:
    frames = [_picture().rotate(angle) for angle in (0, 90, 180)]
    return _saved(frames[0], kind, save_all=True, append_images=frames[1:])


def _nan() -> np.ndarray:
    return _with(_grey(), float("nan"))


CONTENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("bad.jpg", bytes),
    "zeros": ("bad.png", lambda: bytes(5000)),
    "text": ("bad.jpg", lambda: b"this is no picture\n" * 100),
    "html": ("bad.png", lambda: b"<html><script>alert(1)</script></html>"),
    "jpeg named png": ("bad.png", lambda: _saved(_picture(), "JPEG")),
    "png named jpg": ("bad.jpg", lambda: _saved(_picture(), "PNG")),
    "webp named tif": ("bad.tif", lambda: _saved(_picture(), "WEBP")),
    "gif named jpg": ("bad.jpg", lambda: _saved(_picture(), "GIF")),
    **{
        f"{w} x {h} pixels": ("bad.png", partial(lambda w, h: _saved(_picture((w, h)), "PNG"), w, h))
        for w, h in ((1, 1), (1, 1000), (1000, 1), (2, 2), (7, 7), (15, 33), (5000, 3), (3, 5000), (1, 60000))
    },
    "sixteen bits": ("bad.png", lambda: _array((_grey() * 256).astype(np.uint16), "PNG")),
    "sixteen bits tiff": ("bad.tif", lambda: _array((_grey() * 256).astype(np.uint16))),
    "thirty-two bits tiff": ("bad.tif", lambda: _array((_grey() * 8e6).astype(np.int32))),
    "float tiff": ("bad.tif", lambda: _array(_grey())),
    "float tiff, one NaN": ("bad.tif", lambda: _array(_nan())),
    "float tiff, infinities": ("bad.tif", lambda: _array(_with(_grey(), np.inf, -np.inf, 1e38, -1e38))),
    "float tiff, all NaN": ("bad.tif", lambda: _array(np.full((120, 160), np.nan, np.float32))),
    "float tiff, constant": ("bad.tif", lambda: _array(np.full((120, 160), 7, np.float32))),
    **{
        f"mode {mode} as {kind}": (f"bad.{suffix}", partial(lambda m, k: _saved(_picture().convert(m), k), mode, kind))
        for mode, kind, suffix in (
            ("CMYK", "JPEG", "jpg"),
            ("CMYK", "TIFF", "tif"),
            ("LA", "PNG", "png"),
            ("P", "PNG", "png"),
            ("1", "PNG", "png"),
            ("1", "TIFF", "tif"),
            ("RGBA", "PNG", "png"),
            ("RGBA", "TIFF", "tif"),
            ("RGBA", "WEBP", "webp"),
            ("YCbCr", "TIFF", "tif"),
            ("LAB", "TIFF", "tif"),
            ("L", "BMP", "bmp"),
            ("1", "BMP", "bmp"),
            ("P", "BMP", "bmp"),
            ("L", "PPM", "ppm"),
            ("1", "PPM", "pbm"),
        )
    },
    **{f"animated {kind}": (f"bad.{kind.lower()}", partial(_animated, kind)) for kind in ("GIF", "PNG", "WEBP")},
    "pages of tiff": ("bad.tif", partial(_animated, "TIFF")),
    "progressive": ("bad.jpg", lambda: _saved(_picture(), "JPEG", progressive=True)),
    "png of 60000 x 60000": ("bad.png", lambda: _png_header(60000, 60000)),
    "png of 2^31": ("bad.png", lambda: _png_header(2**31 - 1, 2**31 - 1)),
    "png of 0 x 0": ("bad.png", lambda: _png_header(0, 0)),
    "one-bit png of 40000 x 30000": ("bad.png", lambda: _png_header(40000, 30000, 1, 0)),
    "png of unknown colour": ("bad.png", lambda: _png_header(100, 100, 7, 9)),
    "bmp, negative": ("bad.bmp", lambda: _bmp(-100, -100)),
    "bmp, huge": ("bad.bmp", lambda: _bmp(2**31 - 1, 2**31 - 1)),
    "bmp, outside": ("bad.bmp", lambda: _bmp(10, 10, 2**31)),
    "jpeg of 65535 x 65535": ("bad.jpg", lambda: _jpeg_size(65535, 65535)),
    "jpeg of 0 x 0": ("bad.jpg", lambda: _jpeg_size(0, 0)),
    "jpeg of 1 x 65500": ("bad.jpg", lambda: _jpeg_size(1, 65500)),
    **{f"orientation {value}": ("bad.jpg", partial(_exif, e_0112=value)) for value in (0, 6, 9, 255, 65535)},
    "gps of 999 degrees": ("bad.jpg", lambda: _exif(g_1="N", g_2=(999.0, 99.0, 99.0), g_3="E", g_4=(999.0, 0.0, 0.0))),
    "gps without a letter": ("bad.jpg", lambda: _exif(g_2=(10.0, 0.0, 0.0), g_4=(10.0, 0.0, 0.0))),
    "gps of 0 denominators": ("bad.jpg", lambda: _exif(g_1="N", g_2=(_NONE,) * 3, g_3="E", g_4=(_NONE,) * 3)),
    "gps letters": ("bad.jpg", lambda: _exif(g_1="X", g_2=(1.0, 1.0, 1.0), g_3="\x00", g_4=(1.0, 1.0, 1.0), g_6=4e9)),
    "exif sizes that lie": ("bad.jpg", lambda: _exif(i_A002=1, i_A003=10**6)),
    "make of 10000 letters": ("bad.jpg", lambda: _exif(e_010F="\x1b[31m<b>" * 1250, e_0110="\n\r\t\x07" * 100)),
}
FOCALS = (0.0, 0.001, 1.0, 5.0, 300.0, 65535.0, 4e9)


def _focal_content(value: float, tag: str) -> bytes:
    return _exif(**{f"i_{tag}": int(value) if tag == "A405" else value})


CONTENTS |= {
    f"focal length {value} in {tag}": (
        "bad.jpg",
        partial(_focal_content, min(value, 65535 if tag == "A405" else value), tag),
    )
    for value in FOCALS
    for tag in ("920A", "A405")
    if tag == "920A" or value >= 1
}


def _make(name: str, content: Callable[[], bytes], folder: Path) -> list[str]:
    photos = small_job.photos(folder)
    (photos / name).write_bytes(content())
    return small_job.run(folder, photos)


def _told(name: str, folder: Path, ended: Finished) -> str:
    """The picture has features, a line of failed.csv, or its suffix was named."""
    named = (folder / "work" / "failed.csv").read_text() + (folder / "work" / "images.json").read_text()
    suffix = name.partition(".")[2]
    return "" if name in named or f".{suffix}" in ended.out[0] + ended.err[0] else f"lost: {name} is in no list"


def _case(title: str, name: str, content: Callable[[], bytes]) -> Case:
    return Case(f"picture: {title}", "pictures", partial(_make, name, content), USED, check=partial(_told, name))


CASES = [_case(title, name, content) for title, (name, content) in CONTENTS.items()]

WHOLE = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"}


def _truncated(suffix: str, share: float) -> bytes:
    whole = _saved(_picture(), WHOLE[suffix])
    return whole[: int(len(whole) * share)]


def _damaged(suffix: str, seed: str) -> bytes:
    dice, content = (
        random.Random(seed),
        bytearray(_exif(e_0112=6, i_920A=30.0) if suffix == "jpg" else _saved(_picture(), WHOLE[suffix])),
    )
    first = dice.choice([64, 400, len(content)])
    for _ in range(dice.choice([1, 4, 40])):
        content[dice.randrange(min(first, len(content)))] = dice.randrange(256)
    return bytes(content)


def generate(seed: int) -> list[Case]:
    """Truncated and damaged pictures of each format."""
    dice, cases = random.Random(f"pictures {seed}"), []
    for suffix in WHOLE:
        share = round(dice.random(), 3)
        title = f"{suffix}, the first {share} (seed {seed})"
        cases.append(_case(title, f"bad.{suffix}", partial(_truncated, suffix, share)))
        for number in range(2):
            content = partial(_damaged, suffix, f"{seed} {number}")
            cases.append(_case(f"{suffix}, wrong bytes {number} (seed {seed})", f"bad.{suffix}", content))
    return cases
