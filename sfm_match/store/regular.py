"""Opening files that anybody may have put there: regular ones only. Reading a pipe or a device might never end."""

import errno
from io import FileIO
from pathlib import Path

_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def of_the_process(error: BaseException) -> bool:
    """Whether an error says that this process may open no more files, or gets no memory: the file may be whole."""
    return isinstance(error, OSError) and error.errno in _OF_THE_PROCESS


def open_regular(path: Path, largest: int | None = None) -> FileIO:
    """A file, open for reading, without a buffer of its own.

    Raises:
        OSError: it is not there, may not be read, is a folder, is no regular file, or is larger than `largest` bytes.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # of a folder, the system has a line of its own
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if largest is not None and path.stat().st_size > largest:
        raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", str(path))
    return FileIO(path)


def read_regular(path: Path, largest: int) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path, largest) as file:
        return file.read()
