"""EXIF: focal lengths, positions, and the directories that are read without Pillow."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from sfm_match.images.collection import refresh_collection
from sfm_match.images.exif import focal_from_exif, location_from_exif, read_directory
from sfm_match.images.files import read_header
from sfm_match.job.workspace import Workspace


def test_focal_from_35_mm_equivalent() -> None:
    assert focal_from_exif({0xA405: 36}, 4000, 3000)[0] == 4000
    assert focal_from_exif({0xA405: 36}, 3000, 4000)[0] == 4000


def test_focal_from_sensor_survives_resizing_and_turning() -> None:
    # 20 mm lens, sensor of 36 x 27 mm
    exif = {0x920A: 20.0, 0xA20E: 4000 / (36 / 25.4), 0xA210: 2, 0xA002: 4000, 0xA003: 3000}
    assert focal_from_exif(exif, 4000, 3000)[0] == pytest.approx(4000 * 20 / 36)
    assert focal_from_exif(exif, 1000, 750)[0] == pytest.approx(1000 * 20 / 36)
    assert focal_from_exif({**exif, 0xA002: 3000, 0xA003: 4000}, 3000, 4000)[0] == pytest.approx(4000 * 20 / 36)
    assert focal_from_exif({k: v for k, v in exif.items() if k < 0xA000 or k > 0xA100}, 4000, 3000)[0] == pytest.approx(
        4000 * 20 / 36
    )


@pytest.mark.parametrize("exif", [{}, {0xA405: 0}, {0x920A: 20.0}, {0x920A: "x", 0xA20E: 0}])
def test_focal_unknown(exif: dict) -> None:
    assert focal_from_exif(exif, 100, 100) == (None, "")


@pytest.mark.parametrize("equivalent", [1, 5, 3500, 65535, -50, float("nan"), float("inf"), IFDRational(1, 0)])
def test_focal_lengths_that_no_lens_has_are_dropped_and_named(equivalent: object) -> None:
    focal, dropped = focal_from_exif({0xA405: equivalent}, 4000, 3000)
    assert focal is None
    assert "focal length of" in dropped and "6 to 3,000 mm" in dropped


def test_the_other_way_to_tell_a_focal_length_is_taken() -> None:
    exif = {0xA405: 65535, 0x920A: 20.0, 0xA20E: 4000 / (36 / 25.4), 0xA210: 2}
    focal, dropped = focal_from_exif(exif, 4000, 3000)
    assert focal == pytest.approx(4000 * 20 / 36)
    assert "65535 mm" in dropped


def test_what_is_dropped_is_named_in_the_header_and_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 65535
    exif.get_ifd(0x8825).update(gps((133.0, 30.0, 36.0), (70.0, 15.0, 0.0)))
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    header = read_header(tmp_path / "a.jpg")
    assert (header.focal, header.location) == (None, None)
    assert "65535 mm" in header.dropped and "-133.51, -70.25 degrees" in header.dropped
    refresh_collection(Workspace(tmp_path / "work"), tmp_path, None)
    assert "EXIF values of 1 images are not used: a.jpg: its EXIF says a focal length of 65535 mm" in caplog.text


def gps(latitude: object, longitude: object, **more: object) -> dict:
    return {1: "S", 2: latitude, 3: "W", 4: longitude, **{int(key[1:]): value for key, value in more.items()}}


def test_gps_of_a_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(gps((33.0, 30.0, 36.0), (70.0, 15.0, 0.0), _5=b"\x01", _6=12.5))
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg").location == pytest.approx((-33.51, -70.25, -12.5))
    Image.new("RGB", (64, 48)).save(tmp_path / "b.jpg")
    assert read_header(tmp_path / "b.jpg").location is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (gps((1, 30, 0), (2, 0, 0)), (-1.5, -2.0, None)),
        (gps((1, 30, 0), (2, 0, 0), _6="high"), (-1.5, -2.0, None)),
        (gps((0, 0, 0), (0, 0, 0)), None),  # no fix
        (gps((91, 0, 0), (2, 0, 0)), None),
        (gps((float("nan"), 0, 0), (2, 0, 0)), None),
        (gps((1, 2), (2, 0, 0)), None),
        (gps(1.5, (2, 0, 0)), None),
        ({2: (1, 0, 0)}, None),
        ({}, None),
    ],
)
def test_gps_that_may_be_damaged(found: dict, expected: tuple | None) -> None:
    assert location_from_exif(found)[0] == expected


HEADS = (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")  # of either byte order, the directory right behind
WORDS = st.integers(0, 2**16 - 1)
FRACTIONS = st.builds(IFDRational, st.integers(0, 10**6), st.integers(0, 1000))
WANTED = {0x920A, 0xA405, 0xA002, 0xA20E, 0xA210, 0x9000}


@given(
    st.sampled_from(HEADS),
    st.fixed_dictionaries(
        {},
        optional={
            0x920A: FRACTIONS,
            0xA405: WORDS,
            0xA002: st.integers(0, 2**32 - 1),
            0xA20E: FRACTIONS,
            0xA210: WORDS,
            0x9003: st.just("2026:11:24 08:00:00"),  # of no interest
        },
    ),
)
def test_a_directory_is_read_as_pillow_reads_it(head: bytes, values: dict) -> None:
    directory = ImageFileDirectory_v2(head, group=0x8769)
    for tag, value in values.items():
        directory[tag] = value
    block = head + directory.tobytes(len(head))
    theirs, file = ImageFileDirectory_v2(head, group=0x8769), io.BytesIO(block)
    file.seek(len(head))
    theirs.load(file)
    expected = {tag: float(value) for tag, value in theirs.items() if tag in WANTED}
    assert read_directory(block, len(head), WANTED) == pytest.approx(expected, nan_ok=True)


def test_several_values_and_text() -> None:
    head = HEADS[0]
    directory = ImageFileDirectory_v2(head, group=0x8825)
    directory[1], directory[2], directory[4] = "S", (33.0, 30.0, 36.0), (70.0, 15.0, 0.5)
    found = read_directory(head + directory.tobytes(len(head)), len(head), {1, 2, 4})
    assert found == {1: "S", 2: (33.0, 30.0, 36.0), 4: (70.0, 15.0, 0.5)}


@given(st.binary(max_size=200), st.integers(0, 250))
def test_rubbish_is_no_directory_or_has_no_such_tags(rubbish: bytes, offset: int) -> None:
    assert read_directory(HEADS[0] + rubbish, offset, set()) == {}
    read_directory(HEADS[1] + rubbish, offset, set(range(2**16)))


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<HHII", 0xA405, 99, 1, 35),  # no such type
        struct.pack("<HHII", 0xA405, 3, 0, 35),
        struct.pack("<HHII", 0x920A, 5, 1, 4000),  # its value lies behind the end
        struct.pack("<HHII", 0x920A, 5, 2**31, 8),
        struct.pack("<HHI", 0x920A, 5, 1),  # cut
    ],
)
def test_a_damaged_tag_is_left_out(entry: bytes) -> None:
    good = struct.pack("<HHIHH", 0xA210, 3, 1, 2, 0)
    assert read_directory(HEADS[0] + struct.pack("<H", 2) + good + entry, 8, WANTED) == {0xA210: 2}
