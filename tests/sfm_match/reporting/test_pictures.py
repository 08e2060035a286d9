"""Pictures are written whole, where nothing is lost, and whatever was imported before; text is drawable."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.reporting.pictures import Pen, check_picture, write_picture

FIRST = "import pycolmap, cv2, sys, numpy as np; from pathlib import Path; from sfm_match.reporting import pictures; "


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_where_pycolmap_was_imported_first(suffix: str, tmp_path: Path) -> None:
    """OpenCV and Pillow abort, or never end, as they write a PNG then."""
    path, root = tmp_path / f'"é\udce9" 1{suffix}', Path(__file__).parents[3]
    script = FIRST + "pictures.write_picture(Path(sys.argv[1]), np.full((40, 60, 3), (250, 10, 120), np.uint8))"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60, cwd=root)
    written = np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR))
    assert written.shape == (40, 60, 3)
    np.testing.assert_allclose(written[20, 30, ::-1], (250, 10, 120), atol=3 if suffix == ".jpg" else 0)
    assert list(tmp_path.iterdir()) == [path]


def test_where_it_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    check_picture("--png", tmp_path / "there.png", overwrite=True)
    check_picture("--png", tmp_path / "new.JPG", overwrite=False)
    for name, message in {
        "there.png": "it is there",
        "folder.png": "that is a folder",
        "none/a.png": "no such folder as",
        "a.gif": "must be a name that ends in",
        "a": "must be a name that ends in",
    }.items():
        with pytest.raises(UsageError, match=f"--png .*{message}"):
            check_picture("--png", tmp_path / name, overwrite=False)
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        with pytest.raises(SfmMatchError, match="cannot be written"):
            write_picture(tmp_path / "gone" / f"a{suffix}", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_text() -> None:
    pen = Pen(20)
    assert pen.drawable("Zürich <b>'1'.jpg") == "Zurich <b>'1'.jpg"
    assert pen.drawable("a\nb\u2028写真\u0007.jpg") == "a?b????.jpg"
    long = "folder/" * 40 + "last.jpg"
    short = pen.shortened(long, 300)
    assert pen.width(short) <= 300 < pen.width(long)
    assert short.startswith("folder/")
    assert short.endswith("last.jpg")
    assert pen.shortened(long, 0) == ""
    strip = np.full((30, 200, 3), 255, np.uint8)
    pen.write(strip, (5, 5), "text", (200, 0, 0))
    assert (strip == (200, 0, 0)).all(axis=2).any()
