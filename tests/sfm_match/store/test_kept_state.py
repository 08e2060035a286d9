"""What is kept of a folder holds as long as nothing in it has changed."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from sfm_match.store.kept_state import digest_of, is_kept, keep, kept, state_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, of which something is kept for the inputs `["a"]`."""
    made = tmp_path / "matches"
    made.mkdir()
    for name in ("00000.h5", "00001.h5"):
        (made / name).write_bytes(b"content")
    keep(made, ["a"], {"numbers": np.arange(3), "names": ["ü", ""], "none": []})
    return made


def test_what_is_kept(folder: Path) -> None:
    found = kept(folder, ["a"])
    assert found is not None
    np.testing.assert_array_equal(found["numbers"], [0, 1, 2])
    assert (found["names"], found["none"]) == (["ü", ""], [])
    assert is_kept(folder, ["a"])
    assert kept(folder, ["b"]) is None
    assert not is_kept(folder, ["b"])
    assert state_path(folder).parent == folder.parent  # where nobody takes it for one of the folder's files


@pytest.mark.parametrize("what", ["written", "touched", "gone", "more", "renamed"])
def test_a_folder_that_changed(folder: Path, what: str) -> None:
    one = folder / "00001.h5"
    if what == "written":
        one.write_bytes(b"CONTENT")
    elif what == "touched":
        os.utime(one, ns=(0, one.stat().st_mtime_ns + 1))
    elif what == "gone":
        one.unlink()
    elif what == "more":
        (folder / "00002.h5").touch()
    else:
        one.rename(folder / "00002.h5")
    assert kept(folder, ["a"]) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_what_is_damaged_or_lost_is_not_kept(folder: Path, content: bytes | None) -> None:
    path = state_path(folder)
    if content is None:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(content)
    assert kept(folder, ["a"]) is None
    path.unlink()
    assert kept(folder, ["a"]) is None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    keep(tmp_path / "none", [], {})
    assert kept(tmp_path / "none", []) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 9000])
def test_a_digest_is_of_all_lines(count: int) -> None:
    texts = [f"ü{i}" for i in range(count)]
    assert digest_of(texts) == hashlib.sha256("\n".join(texts).encode()).hexdigest()


def test_digests() -> None:
    assert digest_of(["a", "b"]) == digest_of(iter(["a", "b"])) != digest_of(["a b"])
    digest_of(["\udc80"])  # a name that is no UTF-8
