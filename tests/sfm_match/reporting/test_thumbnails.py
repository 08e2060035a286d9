"""Pictures are upright, small, and within their budget."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sfm_match.images.files import Header, read_header
from sfm_match.reporting import thumbnails as module
from sfm_match.reporting.thumbnails import side_of, thumbnails


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


def test_upright(tmp_path: Path) -> None:
    """The left half of the file is red; EXIF says that its left edge is at the top."""
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[:, :450, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    made = thumbnails(tmp_path, {"a.jpg": read_header(tmp_path / "a.jpg"), "gone.jpg": read_header(tmp_path / "a.jpg")})
    picture = decoded(made.pictures["a.jpg"])
    assert picture.shape == (640, 427, 3)
    assert picture[:300, :, 0].min() > 200
    assert picture[340:, :, 0].max() < 60
    assert (made.missing, made.left_out, list(made.pictures)) == (1, 0, ["a.jpg"])


def test_of_very_many_only_those_that_fit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {f"{i:02d}.jpg": Header(200, 150) for i in range(40)}
    for name in headers:
        cv2.imwrite(str(tmp_path / name), np.zeros((150, 200, 3), np.uint8))
    read: list[str] = []

    def noted(_: Path, name: str, __: Header, *, side: int) -> bytes:
        read.append(f"{name} {side}")
        return b"jpeg"

    monkeypatch.setattr(module, "_thumbnail", noted)
    made = thumbnails(tmp_path, headers, budget=10_000)  # ten of the smallest
    assert (len(read), made.left_out, made.missing) == (10, 30, 0)
    assert {"00.jpg", "39.jpg"} < set(made.pictures)  # from all over


def test_a_small_budget(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), noise)
    headers = {name: read_header(tmp_path / name) for name in names}
    made = thumbnails(tmp_path, headers, budget=7_000)
    assert made.left_out == 8 - len(made.pictures) > 0  # noise is larger than photographs
    assert sum(len(picture) for picture in made.pictures.values()) <= 7_000


def test_sides() -> None:
    assert [side_of(count, 16_000_000) for count in (1, 11, 100, 5000, 10**6)] == [640, 640, 640, 100, 64]


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Header]:
    """Three, in `tmp_path`."""
    for number, name in enumerate(["a.jpg", "b\n<>.jpg", "c.jpg"]):
        cv2.imwrite(str(tmp_path / name), np.full((90, 120, 3), 40 * number, np.uint8))
    return {path.name: read_header(path) for path in sorted(tmp_path.glob("*.jpg"))}


@pytest.fixture
def decoded_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the photographs that were read."""
    names: list[str] = []
    real = module._thumbnail

    def noted(folder: Path, name: str, header: Header, *, side: int) -> bytes | None:
        names.append(name)
        return real(folder, name, header, side=side)

    monkeypatch.setattr(module, "_thumbnail", noted)
    return names


def test_photographs_that_did_not_change_are_not_read_again(
    photographs: dict[str, Header], tmp_path: Path, decoded_names: list[str]
) -> None:
    kept = tmp_path / "thumbnails.zip"
    first = thumbnails(tmp_path, photographs, kept)
    assert len(decoded_names) == 3
    decoded_names.clear()
    assert thumbnails(tmp_path, photographs, kept) == first
    assert not decoded_names
    cv2.imwrite(str(tmp_path / "c.jpg"), np.full((90, 120, 3), 200, np.uint8))
    again = thumbnails(tmp_path, photographs, kept)
    assert decoded_names == ["c.jpg"]
    assert int(decoded(again.pictures["c.jpg"])[45, 60, 0]) == pytest.approx(200, abs=3)
    assert {name for name in first.pictures if first.pictures[name] != again.pictures[name]} == {"c.jpg"}


def test_damage_and_lies_are_made_again(
    photographs: dict[str, Header], tmp_path: Path, decoded_names: list[str]
) -> None:
    kept = tmp_path / "thumbnails.zip"
    right, whole = thumbnails(tmp_path, photographs, kept), kept.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        spoilt = bytearray(whole)
        spoilt[random.integers(len(whole))] ^= 1 << random.integers(8)
        kept.write_bytes(spoilt)
        assert thumbnails(tmp_path, photographs, kept) == right
    for garbage in (b"", b"PK", whole[:-30], os.urandom(1000)):
        kept.write_bytes(garbage)
        decoded_names.clear()
        assert thumbnails(tmp_path, photographs, kept) == right
        assert len(decoded_names) == 3
    assert kept.read_bytes() == whole


def test_where_it_cannot_be_kept(photographs: dict[str, Header], tmp_path: Path) -> None:
    kept = tmp_path / "thumbnails.zip"
    kept.mkdir()
    assert len(thumbnails(tmp_path, photographs, kept).pictures) == 3
    assert not list(tmp_path.glob("*.tmp-*"))
