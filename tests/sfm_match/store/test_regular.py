"""What is no regular file is not read: a pipe or a device might never end."""

import os
from pathlib import Path

import pytest

from sfm_match.store.records import DamagedRecord, read_json
from sfm_match.store.regular import open_regular, read_regular


def test_regular_files_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, 2) == b"{}"
        with pytest.raises(OSError, match="larger than 1 bytes"):
            read_regular(tmp_path / name, 1)
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / name)
        with pytest.raises(DamagedRecord, match=f"{name}: not a regular file; cure"):
            read_json(tmp_path / name, dict[str, int], "cure")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
