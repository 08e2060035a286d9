"""Files under their final name are whole; others are refused with a message."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from sfm_match.store.shard import (
    ShardError,
    fingerprint,
    open_shard,
    read_strings,
    remove_leftovers,
    replacing,
    write_shard,
    write_text,
)


def test_roundtrip(tmp_path: Path) -> None:
    names = ["a b.jpg", "ü/tab\there.png", ""]
    write_shard(tmp_path / "x" / "0.h5", {"n": names, "v": np.arange(6).reshape(2, 3)}, {"fingerprint": "f"})
    with open_shard(tmp_path / "x" / "0.h5", "extract") as file:
        assert read_strings(file, "n") == names
        np.testing.assert_array_equal(file["v"][()], [[0, 1, 2], [3, 4, 5]])
        assert file.attrs["fingerprint"] == "f"


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


def test_leftovers_of_the_killed_are_removed(tmp_path: Path) -> None:
    (tmp_path / "00000.h5.tmp-123").write_bytes(b"half")
    (tmp_path / "00000.h5").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000.h5"]


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_hostile_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.h5").write_bytes(content)
    with pytest.raises(ShardError, match="damaged"), open_shard(tmp_path / "0.h5", "extract", unchecked=True):
        pass


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
