"""Files under their final name are whole; others are refused with a message."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import no_more_files

from sfm_match.store import shard
from sfm_match.store.shard import (
    ShardError,
    check_bytes,
    fingerprint,
    open_shard,
    read_strings,
    read_text,
    remove_leftovers,
    replacing,
    temporary_name,
    unless_there,
    write_shard,
    write_text,
)


def test_roundtrip(tmp_path: Path) -> None:
    names = ["a b.jpg", "ü/tab\there.png", ""]
    write_shard(tmp_path / "x" / "0.h5", {"n": names, "v": np.arange(6).reshape(2, 3)}, {"fingerprint": "f"})
    with open_shard(tmp_path / "x" / "0.h5", "extract") as file:
        assert read_strings(file, "n") == names
        np.testing.assert_array_equal(file["v"][()], [[0, 1, 2], [3, 4, 5]])
        assert read_text(file, "fingerprint") == "f"


@pytest.mark.parametrize("long", [10, 5000])
def test_few_strings_take_little_space(tmp_path: Path, long: int) -> None:
    """Where a heap of HDF5 would be larger, they are padded; where they are long, they are in one."""
    path = tmp_path / "0.h5"
    names = ["x", "ü" * long, "y" * 3]
    write_shard(path, {"n": names}, {"fingerprint": "f", "empty": ""})
    assert path.stat().st_size < (2000 if long == 10 else 5 * long)
    with open_shard(path, "extract") as file:
        assert read_strings(file, "n") == names
        assert read_text(file, "empty") == ""


def test_empty_list_of_strings(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.h5", {"n": []}, {})
    with open_shard(tmp_path / "0.h5", "extract") as file:
        assert read_strings(file, "n") == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_writes_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "0.h5"
    with unless_there(path) as mine:
        mine.write_text("mine")
        with unless_there(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "other"
    write_shard(path, {"v": np.arange(3)}, {}, unless_there)
    assert path.read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]


def test_a_folder_in_the_place_of_a_file_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a" / "theirs").mkdir(parents=True)
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.damaged", "a.damaged-2"}
    assert "a: a folder; moved to a.damaged-2" in caplog.text


def test_leftovers_of_the_killed_are_removed(tmp_path: Path) -> None:
    (tmp_path / "00000.h5.tmp-123").write_bytes(b"half")
    (tmp_path / "00000.h5").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000.h5"]


def test_a_report_on_its_way_stays(tmp_path: Path) -> None:
    """It is made without the lock: a job that begins, or ends a stage, took its file away."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mine = f"{temporary_name('report.html')}".rsplit("-", 2)[0]
        for pid in (other.pid, os.getpid(), 2**22 + 1, 10**30):  # alive, ours of before, dead, no process at all
            (tmp_path / f"{mine}-{pid}-abc").write_bytes(b"half")
        (tmp_path / f"report.html.tmp-elsewhere-{other.pid}-abc").write_bytes(b"half")
        (tmp_path / f"00000.h5.tmp-{other.pid}").write_bytes(b"half")
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f"{mine}-{other.pid}-abc"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_hostile_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.h5").write_bytes(content)
    with pytest.raises(ShardError, match="damaged"), open_shard(tmp_path / "0.h5", "extract", unchecked=True):
        pass


def test_a_process_that_may_open_no_more_files_says_nothing_of_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    write_shard(path, {"v": np.arange(10)}, {})
    with pytest.raises(OSError, match="Too many open files"), no_more_files(), open_shard(path, "extract"):
        pass
    with pytest.raises(OSError, match="Too many open files"), no_more_files():
        check_bytes(path, "extract")
    check_bytes(path, "extract")


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    write_shard(path, {"v": np.arange(10_000)}, {})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ShardError), open_shard(path, "extract"):
        pass


def test_another_schema_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file.attrs["schema"] = 99
    with pytest.raises(ShardError, match="schema 99"), open_shard(tmp_path / "0.h5", "extract", unchecked=True):
        pass


def test_fingerprint_knows_values_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint([["ab"]]) != fingerprint([["a", "b"]])


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_an_iterator_has_the_fingerprint_of_a_list(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_AT_ONCE", 4)
    entries = [(f'{number}, "ü".jpg', {"b": None, "a": number / 3}) for number in range(count)]
    as_list = fingerprint([1, entries, {"z": [entries, "end"], "a": entries}])
    assert as_list == fingerprint([1, iter(entries), {"z": [iter(entries), "end"], "a": iter(entries)}])
    with pytest.raises(TypeError, match="int64"):
        fingerprint([np.int64(1)])
