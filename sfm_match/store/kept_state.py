"""What thousands of files of a folder hold, kept beside the folder, so that a large workspace opens at once.

It says nothing of its own: it holds as long as every file of the folder has the size and the time that it had, and the
inputs are the same. Otherwise the files tell, as they do where it is lost or damaged.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import h5py
from numpy.typing import NDArray

from sfm_match.store.shard import ShardError, fingerprint, open_shard, read_strings, read_text, write_shard

SCHEMA = 2  # raise it when there come to be other arrays, or they to mean something else
SUFFIX = ".state"  # of a folder's name
_AT_ONCE = 1 << 12  # strings
T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any] | list[str]]


def state_path(folder: Path) -> Path:
    """Of what is kept of a folder."""
    return folder.with_name(folder.name + SUFFIX)


def keep(folder: Path, inputs: Any, arrays: Arrays) -> None:
    """Keeps what the files of a folder hold, as they are now.

    Args:
        folder: of files that have their final names.
        inputs: JSON values; what is kept holds for them alone.
        arrays: what the files hold.

    Raises:
        OSError: it cannot be written.
    """
    if folder.is_dir():
        write_shard(state_path(folder), arrays, {"key": _key(folder, inputs)})


def kept(folder: Path, inputs: Any) -> dict[str, Any] | None:
    """The arrays that were kept of a folder; None where they do not hold any more."""
    return _read(folder, inputs, _arrays)


def is_kept(folder: Path, inputs: Any) -> bool:
    """Whether what was kept of a folder holds."""
    return _read(folder, inputs, lambda _: True) is not None


def _read(folder: Path, inputs: Any, read: Callable[[h5py.File], T]) -> T | None:
    """What is read of what is kept; None where that does not hold."""
    path = state_path(folder)
    if not (path.is_file() and folder.is_dir()):
        return None
    try:
        with open_shard(path, "match") as file:
            return read(file) if read_text(file, "key") == _key(folder, inputs) else None
    except ShardError:
        return None


def _arrays(file: h5py.File) -> dict[str, Any]:
    return {
        name: read_strings(file, name) if h5py.check_string_dtype(one.dtype) else one[()] for name, one in file.items()
    }


def digest_of(texts: Iterable[str]) -> str:
    """Of very many strings, none of which holds a line break."""
    digest, rest = hashlib.sha256(), iter(texts)
    between = b""
    while some := list(islice(rest, _AT_ONCE)):
        digest.update(between + "\n".join(some).encode("utf-8", "surrogatepass"))
        between = b"\n"
    return digest.hexdigest()


def _key(folder: Path, inputs: Any) -> str:
    with os.scandir(folder) as entries:
        files = [(entry.name, entry.stat()) for entry in entries]
    found = sorted(f"{name}\t{status.st_size}\t{status.st_mtime_ns}" for name, status in files)
    return fingerprint([SCHEMA, inputs, digest_of(found)])
