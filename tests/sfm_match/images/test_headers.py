"""Headers come in their order, whether reading them waits or not."""

import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfm_match.images import headers
from sfm_match.images.files import Header, ImageError
from sfm_match.images.headers import read_headers


@pytest.mark.parametrize("waiting", [False, True])
def test_headers_come_in_their_order_and_from_threads_where_reading_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    names = [f"{number}.png" for number in range(30)]
    wrong, readers = (0, 7, 29), set[int]()

    def read(path: Path) -> Header:
        readers.add(threading.get_ident())
        number = int(path.stem)
        if number in wrong:
            raise ImageError("no image")
        return Header(40 + number % 5, 40)

    monkeypatch.setattr(headers, "read_header", read)
    monkeypatch.setattr(headers, "_AT_ONCE", headers._ALONE + 4)
    clock = SimpleNamespace(monotonic=count(0, 3 if waiting else 1).__next__, thread_time=count().__next__)
    monkeypatch.setattr(headers, "time", clock)
    found = list(read_headers(tmp_path, names))
    assert [number for number, one in enumerate(found) if isinstance(one, ImageError)] == list(wrong)
    sizes = [(40 + number % 5, 40) for number in range(30) if number not in wrong]
    assert [(one.width, one.height) for one in found if isinstance(one, Header)] == sizes
    assert found[1] is found[6]
    assert (len(readers) > 1) == waiting
