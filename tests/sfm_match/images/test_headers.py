"""Headers come in their order, whether reading them waits or not."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_match.images import headers
from sfm_match.images.files import Header, ImageError, read_header
from sfm_match.images.headers import read_headers


@pytest.mark.parametrize("waiting", [False, True])
def test_all_headers_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool) -> None:
    names = [f"{number}.png" for number in range(2 * headers._ALONE)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.zeros((40, 40 + number % 5, 3), np.uint8))
    (tmp_path / names[7]).write_bytes(b"no image")
    (tmp_path / names[-1]).write_bytes(b"no image")

    def slow(path: Path) -> Header:
        if waiting:
            time.sleep(0.003)
        return read_header(path)

    monkeypatch.setattr(headers, "read_header", slow)
    monkeypatch.setattr(headers, "_AT_ONCE", headers._ALONE + 10)
    found = list(read_headers(tmp_path, names))
    wrong = [number for number, one in enumerate(found) if isinstance(one, ImageError)]
    assert wrong == [7, len(names) - 1]
    sizes = [(40 + number % 5, 40) for number in range(len(names)) if number not in wrong]
    assert [(one.width, one.height) for one in found if isinstance(one, Header)] == sizes
    assert found[0] is found[5]
