"""Write-then-rename: a file under its final name is whole.

A unit's result is one file. A process killed while writing leaves a `.tmp-HOST-PID-ID` beside it, never a broken
result; measured with HDF5, appending to an open file loses all of it at a kill.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError
from sfm_match.signals import removed_if_stopped

SCHEMA = 2  # of features and matches files
TEMPORARY = ".tmp-"  # in the name of what is not finished; deleted when a workspace is opened
_LEFTOVER = re.compile(
    r"(images\.json|pairs(-added)?\.txt|(failed|unregistered)\.csv|(sfm-match|stages)\.json|report\.html|sparse|[\d-]+(-\w+)?\.h5)\.tmp-[\w.-]+"
)


class ShardError(SfmMatchError):
    """A result file that cannot be read."""


def fingerprint(inputs: Any) -> str:
    """A short digest of JSON values: equal inputs, equal fingerprint."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(name: str, what: str = "") -> str:
    """Of what is to become `name`. No other process has it, on this machine or on another that shares the disk."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return f"{name}{TEMPORARY}{host}-{os.getpid()}-{what or uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path; when the block ends well, that file durably becomes `path`."""
    temporary = path.with_name(temporary_name(path.name))
    with removed_if_stopped(temporary):
        try:
            yield temporary
            commit(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Makes a finished file, or folder of finished files, durably `path`."""
    if temporary.is_dir():
        for inner in temporary.rglob("*"):
            _sync(inner)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed writers left. The caller holds the workspace's lock, so no writer is alive."""
    for leftover in folder.glob(f"*{TEMPORARY}*"):
        if not _LEFTOVER.fullmatch(leftover.name):  # not ours
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def write_shard(path: Path, arrays: Mapping[str, NDArray[Any] | list[str]], attributes: Mapping[str, Any]) -> None:
    """Writes one HDF5 file: an array or a list of strings a dataset, metadata in attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # in memory first: HDF5 can crash the process when the disk is full as it closes a file
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs.update(attributes)
        for name, values in arrays.items():
            if isinstance(values, list):
                file.create_dataset(name, data=np.array(values, dtype=object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=values)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[h5py.File]:
    """Opens a shard for reading.

    Raises:
        ShardError: it cannot be read, or another version of the program wrote it.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ShardError(f"{path}: not readable as HDF5; delete it, then run again: it is made anew") from error
    with file:
        schema = file.attrs.get("schema")
        if schema != SCHEMA:
            raise ShardError(f"{path}: schema {schema}, this version reads {SCHEMA}; run with --overwrite")
        try:
            yield file
        except (KeyError, OSError) as error:
            raise ShardError(f"{path}: damaged ({error}); delete it, then run again: it is made anew") from error


def read_strings(file: h5py.File, name: str) -> list[str]:
    return [str(text) for text in file[name].asstr()[()]]
