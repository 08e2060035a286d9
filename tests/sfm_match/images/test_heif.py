"""HEIC and AVIF: what a JPEG of the same picture gives; and what is said where they cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from damage import read_damaged
from PIL import Image, features

import sfm_match
from sfm_match.images import files
from sfm_match.images.coordinates import orient
from sfm_match.images.files import ImageError, decode, read_header

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF here")
COLOURS = np.array([[(250, 20, 20), (20, 250, 20)], [(20, 20, 250), (240, 240, 240)]], np.uint8)  # of the quarters
RAW = COLOURS.repeat(40, axis=0).repeat(60, axis=1)  # (80, 120, 3)


def photograph(path: Path, orientation: int) -> Path:
    """With a focal length of 28 mm, full frame, and a place."""
    image = Image.fromarray(RAW)
    exif = image.getexif()
    exif[0x0112], exif[0x010F], exif[0x0110] = orientation, "Maker", "Model"
    exif.get_ifd(0x8769)[0xA405] = 28
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (151.0, 15.0, 0.0), 5: b"\0", 6: 80.0})
    image.save(path, exif=exif.tobytes(), quality=95)
    return path


def check_header_and_pixels(path: Path, orientation: int, *, turned_by_decoder: bool) -> None:
    """Upright, the picture is that of a JPEG with this tag, and so is what EXIF tells."""
    header, pixels = read_header(path), decode(path)
    assert pixels.shape == (header.height, header.width, 3)
    assert header.orientation == (1 if turned_by_decoder else orientation)
    upright = orient(RAW, orientation)
    assert header.upright_size == (upright.shape[1], upright.shape[0])
    assert np.abs(orient(pixels, header.orientation).astype(int) - upright).mean() < 4
    assert header.camera == "Maker Model"
    assert header.focal == pytest.approx(28 / 36 * 120)
    assert header.location == pytest.approx((-33.5, 151.25, 80.0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_decoded_upright(orientation: int, tmp_path: Path) -> None:
    """Its own rotation is part of decoding, and the tag that cameras write beside it does not turn it twice."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    check_header_and_pixels(photograph(tmp_path / "a.heic", orientation), orientation, turned_by_decoder=True)


def test_a_tag_alone_does_not_turn_a_heic(tmp_path: Path) -> None:
    """ISO 23008-12: what turns the picture is a property of the file (`irot`), whatever EXIF says."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    path = photograph(tmp_path / "a.heic", 6)
    turned = path.read_bytes()
    assert turned.count(b"irot\3") == 1  # by three quarters
    path.write_bytes(turned.replace(b"irot\3", b"irot\0"))
    header = read_header(path)
    assert (header.width, header.height, header.orientation) == (120, 80, 1)
    assert np.abs(decode(path).astype(int) - RAW).mean() < 4


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_stored_as_the_sensor_saw_it(orientation: int, tmp_path: Path) -> None:
    check_header_and_pixels(photograph(tmp_path / "a.avif", orientation), orientation, turned_by_decoder=False)


def test_without_the_extra(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the job goes on."""
    monkeypatch.setattr(files, "_heic_opener", lambda: False)
    images = tmp_path / "images"
    images.mkdir()
    (images / "view.jpg").symlink_to(sorted(rendered.iterdir())[0])
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
    for name in ("a.HEIC", "b.heif"):
        (images / name).write_bytes(heic)
    report = sfm_match.extract(images, tmp_path / "work", size=256, max_keypoints=100)
    assert (report.done, report.failed) == (1, 2)
    assert (tmp_path / "work" / "failed.csv").read_text().splitlines()[1:] == [
        "a.HEIC,HEIC needs a package that is not installed: pip install 'sfm-match[heic]'",
        "b.heif,HEIF needs a package that is not installed: pip install 'sfm-match[heic]'",
    ]


def test_without_avif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(b"\0\0\0\x18ftypxxxx" + b"\0" * 100)
    for there, reason in ((True, "no known format"), (False, r"AVIF needs a package .* 'sfm-match\[heic\]'")):
        monkeypatch.setattr(features, "check", lambda _, there=there: there)
        with pytest.raises(ImageError, match=reason):
            read_header(path)


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_damaged_files_raise_nothing_but_image_errors(suffix: str, tmp_path: Path) -> None:
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("Pillow has no AVIF here")
    path = photograph(tmp_path / f"a.{suffix}", 1)
    whole = path.read_bytes()
    read_damaged(path, np.random.default_rng(0), 30)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError):
        decode(path)
