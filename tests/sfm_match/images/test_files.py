"""Formats, headers and what is refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import read_damaged
from PIL import Image
from processes import no_more_files

from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.files import (
    Header,
    ImageError,
    decode,
    find_mask,
    read_header,
    read_mask,
    scan,
    scanned,
)

SIZE = (80, 60)


def picture() -> Image.Image:
    """Smooth colours, so that lossy formats keep them."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    return Image.fromarray(np.stack((x, y, 255 - x), -1).round().astype(np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.JPG"])
def test_formats(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name, quality=95)
    assert [fact.name for fact in scan(tmp_path)] == [name]
    pixels = decode(tmp_path / name)
    assert pixels.shape == (60, 80, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(picture())).mean() < 4


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("CMYK", "tif"), ("1", "png")]
)
def test_colour_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture().convert(mode).save(path)
    pixels = decode(path)
    expected = np.asarray(picture().convert(mode).convert("RGB")).astype(int)
    assert pixels.shape == (60, 80, 3)
    assert np.abs(pixels - expected).mean() < 5


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 80 * 60).reshape(60, 80).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    pixels = decode(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(pixels[..., 1], ramp / 257, atol=1)


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    import cv2

    deep = np.asarray(picture()).astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
        np.testing.assert_allclose(decode(tmp_path / name).astype(int), np.asarray(picture()), atol=1)


def truncated(path: Path) -> None:
    picture().resize((640, 480)).save(path, "JPEG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_text("hello"), "no known format"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: Image.new("RGB", (1, 1)).save(p, "PNG"), "1 x 1 pixels"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50), "cannot be opened|no known format"),
        (lambda p: p.symlink_to("nowhere.jpg"), "cannot be opened"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, make, reason: str) -> None:
    make(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=reason):
        read_header(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "I;16"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_turned_tiffs_keep_their_raw_pixels(mode: str, orientation: int, tmp_path: Path) -> None:
    """Pillow turns TIFFs as it loads them, and not all kinds in the same way."""
    deep = (np.arange(80 * 60) * 13 % 65536).reshape(60, 80).astype(np.uint16)
    image = Image.fromarray(deep) if mode == "I;16" else picture().convert(mode)
    image.save(tmp_path / "plain.tif")
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.tif", exif=exif)
    header = read_header(tmp_path / "turned.tif")
    assert (header.width, header.height, header.orientation) == (80, 60, orientation)
    np.testing.assert_array_equal(decode(tmp_path / "turned.tif"), decode(tmp_path / "plain.tif"))


def test_masks_inside_the_folder_are_no_photographs(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "masks" / "a.png.png")
    assert [fact.name for fact in scan(tmp_path, tmp_path / "masks")] == ["a.png"]


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    truncated(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg").width == 640
    with pytest.raises(ImageError, match="truncated"):
        decode(tmp_path / "a.jpg")


def test_a_process_that_may_open_no_more_files_says_nothing_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    decode(path)
    for read in (decode, read_header):
        with pytest.raises(OSError, match="Too many open files"), no_more_files():
            read(path)
    assert isinstance(read_header(path), Header)


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + b"\xff" * 40)
    assert read_header(tmp_path / "a.jpg").width == 80


def test_scan_is_sorted_recursive_and_ignores_the_rest(tmp_path: Path) -> None:
    for name in ("b/ü 2.jpg", "a.png", ".hidden.jpg", ".cache/x.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        picture().save(path, "PNG") if path.suffix != ".txt" else path.write_text("")
    assert [fact.name for fact in scan(tmp_path)] == ["a.png", "b/ü 2.jpg"]


def test_scan_follows_links_once(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "latest").symlink_to(tmp_path)
    assert [fact.name for fact in scan(tmp_path)] == ["a.png"]


def test_damaged_files_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix, mode in (("bmp", "P"), ("png", "RGB"), ("tif", "RGB"), ("webp", "RGB"), ("jpg", "RGB")):
        path = tmp_path / f"a.{suffix}"
        picture().convert(mode).save(path)
        read_damaged(path, rng, 60, within=400)


def test_scan_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        scan(tmp_path / "absent")
    with pytest.raises(NothingDone, match="no image in it"):
        scan(tmp_path)
    assert list(scanned(tmp_path)) == []


def test_signature_changes_with_the_mask(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    picture().save(images / "a.jpg")
    before = scan(images, masks)[0].signature
    picture().convert("L").save(masks / "a.jpg.png")
    assert scan(images, masks)[0].signature != before
    assert find_mask(masks, "a.jpg") == masks / "a.jpg.png"


def test_the_most_specific_mask_counts(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    (masks / "left").mkdir(parents=True)
    for name in ("left.png", "left/far.png", "left/a.jpg.png"):
        picture().convert("L").save(masks / name)
    assert find_mask(masks, "left/a.jpg") == masks / "left" / "a.jpg.png"
    assert find_mask(masks, "left/b.jpg") == masks / "left.png"
    assert find_mask(masks, "left/far/c.jpg") == masks / "left" / "far.png"
    assert find_mask(masks, "right/a.jpg") is None
    assert find_mask(masks / "left.png", "right/a.jpg") == masks / "left.png"  # one for all


def test_a_mask_of_all_among_the_images_is_no_photograph(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg")
    picture().convert("L").save(tmp_path / "mask.png")
    (file,) = scan(tmp_path, tmp_path / "mask.png")
    assert (file.name, file.masked) == ("a.jpg", True)


def test_mask_of_another_aspect_is_refused(tmp_path: Path) -> None:
    Image.new("L", (100, 100), 255).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (400, 400)).min() == 255
    with pytest.raises(ImageError, match="100 x 100 pixels for an image of 400 x 300"):
        read_mask(tmp_path / "m.png", (400, 300))


def test_float_pixels_that_are_no_numbers_do_not_change_the_others(tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(grey).save(tmp_path / "whole.tif")
    expected = decode(tmp_path / "whole.tif")
    grey[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(grey).save(tmp_path / "holed.tif")
    found = decode(tmp_path / "holed.tif")
    assert found[0, :3, 0].tolist() == [0, 255, 0]
    assert np.array_equal(found[1:], expected[1:]) and len(np.unique(found)) > 250


def png_of_zeros(path: Path, width: int, height: int) -> Path:
    """A PNG of one bit a pixel, whose file is a thousandth of what it decodes to."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    return path


def test_the_limit_of_pixels_is_that_of_images_and_masks(tmp_path: Path) -> None:
    path = png_of_zeros(tmp_path / "m.png", 40_000, 30_000)
    for read in (lambda: read_header(path), lambda: decode(path), lambda: read_mask(path, (4000, 3000))):
        with pytest.raises(ImageError, match=r"40000 x 30000 pixels; at most 2\^30"):
            read()


def test_pictures_of_other_kinds_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    for name in ("b.gif", "c.NEF", "d.nef", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in scan(tmp_path)] == ["a.jpg"]
    assert "passed over 1 .gif, 2 .nef: not read; convert" in caplog.text


def test_names_with_control_characters_are_not_used(tmp_path: Path) -> None:
    for name in ("a\x1b[31m.jpg", "b\u2028.jpg", "c\x85.jpg", "d\u3000e.jpg"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    found = scan(tmp_path)
    assert [file.name for file in found if file.error is None] == ["d\u3000e.jpg"]
    assert all(file.name.isprintable() for file in found if file.error is not None)
