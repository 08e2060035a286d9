"""A file that is checked as it is read: a head with the CRC-32 of every block of the content that follows it.

HDF5 sees only bytes that are as they were written: it can crash the process, or give other numbers, where one bit of
its own structures is wrong. A part of a file is read without the rest, and no block is taken on trust.

The head is a user block of HDF5, so that any program opens the file. Little-endian: `_MAGIC`, uint32 version, uint32
block size in bytes, uint64 length of the content, uint32 number of blocks, uint32 CRC-32 of the head itself (with zeros
in this place), uint32 CRC-32 of each block, zeros up to a power of two of at least 512.
"""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16  # bytes; two blocks beyond what is asked for are read at most
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAGIC = b"\x89SFM\r\n\x1a\n"
_HEAD = struct.Struct("<8sIIQII")
_VERSION = 1
_LEAST = 512  # bytes of a user block of HDF5


class DamagedFile(ValueError):
    """Bytes that are not as they were written."""


def head_of(content: memoryview) -> bytes:
    """What goes before a content."""
    sums = [zlib.crc32(content[start : start + BLOCK]) for start in range(0, len(content), BLOCK)]
    size = _LEAST
    while size < _HEAD.size + 4 * len(sums):
        size *= 2
    fields = _MAGIC, _VERSION, BLOCK, len(content), len(sums)
    table = struct.pack(f"<{len(sums)}I", *sums).ljust(size - _HEAD.size, b"\0")
    return _HEAD.pack(*fields, zlib.crc32(_HEAD.pack(*fields, 0) + table)) + table


def is_plain(path: Path) -> bool:
    """Whether a file is HDF5 from its first byte on: it has no head."""
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5


class CheckedFile(io.RawIOBase):
    """The content of a file with a head, for reading: h5py takes it in place of a path.

    `damage` says what was found to be wrong, for a caller whose library hides the error.
    """

    def __init__(self, path: Path) -> None:
        """Raises DamagedFile where the head is not whole, or the length is not what it says."""
        self.damage: str | None = None
        self._file: BinaryIO = path.open("rb", buffering=0)
        self._place = 0
        self._last: tuple[int, bytes] = -1, b""  # HDF5 reads its structures in small pieces
        try:
            self._start, self._size, self._sums = self._read_head()
        except BaseException:
            self._file.close()
            raise

    def _read_head(self) -> tuple[int, int, tuple[int, ...]]:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise DamagedFile("its head is not as it was written")
        *fields, checksum = _HEAD.unpack(head)
        _, version, block, size, count = fields
        start, on_disk = _LEAST, os.fstat(self._file.fileno()).st_size
        if count * 4 <= on_disk:
            while start < _HEAD.size + 4 * count:
                start *= 2
        table = self._file.read(start - _HEAD.size)
        if zlib.crc32(_HEAD.pack(*fields, 0) + table) != checksum or block != BLOCK or count != -(-size // BLOCK):
            raise DamagedFile("its head is not as it was written")
        if version != _VERSION:
            raise DamagedFile(f"its head is of version {version}, this program reads {_VERSION}")
        if on_disk != start + size:
            raise DamagedFile(f"it has {on_disk:,} bytes, and was written with {start + size:,}")
        return start, size, struct.unpack_from(f"<{count}I", table)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        """Fills a buffer from where `seek` went. Raises DamagedFile where a block that it touches is damaged."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._place)]
        begin, end = self._place, self._place + len(view)
        inner = -(-begin // BLOCK) * BLOCK, end // BLOCK * BLOCK  # whole blocks go straight into the buffer
        if inner[0] < inner[1]:
            self._read_blocks(view[inner[0] - begin : inner[1] - begin], inner[0] // BLOCK)
        else:
            inner = end, end
        for one, other in ((begin, inner[0]), (inner[1], end)):
            while one < other:
                number, offset = divmod(one, BLOCK)
                piece = self._block(number)[offset : offset + other - one]
                view[one - begin : one - begin + len(piece)] = piece
                one += len(piece)
        self._place = end
        return len(view)

    def check_all(self) -> None:
        """Reads every block. Raises DamagedFile where one is damaged."""
        for number in range(len(self._sums)):
            self._block(number)

    def _block(self, number: int) -> bytes:
        if self._last[0] != number:
            content = bytearray(min(BLOCK, self._size - number * BLOCK))
            self._read_blocks(memoryview(content), number)
            self._last = number, bytes(content)
        return self._last[1]

    def _read_blocks(self, view: memoryview, first: int) -> None:
        """Whole blocks from the one with this number on."""
        self._file.seek(self._start + first * BLOCK)
        if self._file.readinto(view) != len(view):  # type: ignore[attr-defined]
            self._is_damaged(f"block {first + 1} of {len(self._sums)} cannot be read")
        for place in range(0, len(view), BLOCK):
            number = first + place // BLOCK
            if zlib.crc32(view[place : place + BLOCK]) != self._sums[number]:
                self._is_damaged(f"block {number + 1} of {len(self._sums)} is not as it was written")

    def _is_damaged(self, what: str) -> None:
        self.damage = what
        raise DamagedFile(what)
