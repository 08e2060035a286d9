"""No byte of a checked file is taken on trust."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.store.checked_file import BLOCK, CheckedFile, DamagedFile, head_of, is_plain

LENGTHS = st.integers(0, 4 * BLOCK)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(head_of(memoryview(content)) + content)
    return path


@settings(max_examples=60)
@given(
    length=st.integers(0, 4 * BLOCK), spans=st.lists(st.tuples(st.integers(0, 4 * BLOCK), st.integers(0, 3 * BLOCK)))
)
def test_any_part_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, length: int, spans: list[tuple[int, int]]
) -> None:
    content = np.random.default_rng(length).bytes(length)
    file = CheckedFile(written(tmp_path_factory.mktemp("c") / "f", content))
    for start, size in spans:
        buffer = bytearray(size)
        file.seek(start)
        count = file.readinto(buffer)
        assert bytes(buffer[:count]) == content[start : start + size]
    file.check_all()


@settings(max_examples=200)
@given(data=st.data())
def test_every_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = written(tmp_path_factory.mktemp("c") / "f", bytes(BLOCK + 100))
    whole = bytearray(path.read_bytes())
    at = data.draw(st.one_of(st.integers(0, 600), st.integers(0, len(whole) - 1)))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises(DamagedFile):
        CheckedFile(path).check_all()


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_another_length(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path / "f", bytes(1000))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedFile):
        CheckedFile(path)


def test_only_what_is_read_is_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "f", bytes(3 * BLOCK))
    content = bytearray(path.read_bytes())
    content[512 + BLOCK + 7] ^= 1
    path.write_bytes(content)
    file = CheckedFile(path)
    buffer = bytearray(10)
    for start in (0, 2 * BLOCK):
        file.seek(start)
        assert file.readinto(buffer) == 10
    file.seek(BLOCK - 5)
    with pytest.raises(DamagedFile, match="block 2 of 3"):
        file.readinto(buffer)
    assert file.damage == "block 2 of 3 is not as it was written"


def test_hdf5_passes_over_the_head(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "plain", "w") as file:
        file["a"] = np.arange(100_000)
    path = written(tmp_path / "checked", (tmp_path / "plain").read_bytes())
    assert (is_plain(tmp_path / "plain"), is_plain(path)) == (True, False)
    for source in (path, CheckedFile(path)):
        with h5py.File(source, "r") as file:
            np.testing.assert_array_equal(file["a"][5:70_000:7], np.arange(5, 70_000, 7))


def test_as_the_documentation_has_it(tmp_path: Path) -> None:
    """docs/formats.md, in code that shares nothing with the module."""
    content = np.random.default_rng(0).bytes(300_000)
    file = written(tmp_path / "f", content).read_bytes()
    assert file[:8] == bytes.fromhex("8953464D0D0A1A0A")
    version, block, length, count, checksum = struct.unpack("<IIQII", file[8:32])
    assert (version, block, length, count) == (1, 65536, 300_000, 5)
    assert file[512:] == content
    assert zlib.crc32(file[:28] + bytes(4) + file[32:512]) == checksum
    for number, one in enumerate(struct.unpack("<5I", file[32:52])):
        assert zlib.crc32(content[number * block :][:block]) == one
