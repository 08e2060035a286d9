"""Pictures are upright, small, and within their budget."""

import base64
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sfm_match.images.files import read_header
from sfm_match.reporting.thumbnails import side_of, thumbnails


def decoded(text: str) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


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


def test_a_small_budget(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), noise)
    headers = {name: read_header(tmp_path / name) for name in names}
    made = thumbnails(tmp_path, headers, 9_000)
    assert made.left_out == 8 - len(made.pictures) > 0  # noise is larger than photographs
    assert sum(len(base64.b64decode(picture)) for picture in made.pictures.values()) <= 9_000


def test_sides() -> None:
    assert [side_of(count, 16_000_000) for count in (1, 11, 100, 5000, 10**6)] == [640, 640, 640, 119, 64]
