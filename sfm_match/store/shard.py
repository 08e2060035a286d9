"""Write-then-rename: a file under its final name is whole.

A unit's result is one file. A process killed while writing leaves a `.tmp-HOST-PID-ID` beside it, never a broken
result; measured with HDF5, appending to an open file loses all of it at a kill.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError
from sfm_match.signals import removed_if_stopped
from sfm_match.store.checked_file import CheckedFile, DamagedFile, head_of, is_plain
from sfm_match.store.regular import of_the_process, open_regular

SCHEMA = 5  # of features and matches files
_READABLE = (3, 4, SCHEMA)  # with checksums; 3, 4: matches as they were, features as they are
UNCHECKED = 2  # the schema before there were checksums
_LARGE = 1 << 20  # bytes
_LATER = "\0later"  # in the place of a list that is put in piece by piece; no name and no option holds a NUL
_AT_ONCE = 1 << 12  # entries of such a list
_DEFLATE = 4  # of 9 levels: level 9 takes five times as long for a hundredth of the bytes
_LAYOUT = ("v110", "v110")  # HDF5 1.10, of 2016: its structures take half the bytes of those of 1.6, the default
_HEAP, _IN_HEAP = 4096, 32  # bytes that HDF5 takes, at least, for strings of no one length; for each, beside its text
DAMAGED = ".damaged"  # ends the name of what could not be read
TEMPORARY = ".tmp-"  # in the name of what is not finished; deleted when a workspace is opened
_LEFTOVER = re.compile(
    r"(images\.json|pairs(-added)?\.txt|(failed|unregistered)\.csv|(sfm-match|stages)\.json|report\.html|thumbnails\.zip|(features|matches)\.state|sparse|[\d-]+(-\w+)?\.h5)\.tmp-[\w.-]+"
)

# what h5py raises where a file does not hold what it should
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError)


class ShardError(SfmMatchError):
    """A result file that is damaged, or of another version. Its stage makes it again, once it is out of the way."""

    def __init__(self, path: Path, reason: str, command: str) -> None:
        super().__init__(path, reason, command)  # so that it can be pickled, for a worker process
        self.path, self.reason, self.command = path, reason, command

    def __str__(self) -> str:
        return (
            f"{self.path}: damaged ({self.reason}); `sfm-match doctor --repair` moves it aside, then "
            f"`sfm-match {self.command}` makes it again"
        )


def fingerprint(inputs: Any) -> str:
    """A short digest of JSON values: equal inputs, equal fingerprint.

    An iterator stands for the list of what it gives, the text of which is not made at once: of all names, say.
    """
    lists: list[Iterator[Any]] = []

    def later(value: Any) -> str:
        if not isinstance(value, Iterator):
            raise TypeError(f"{type(value).__name__} is not JSON")
        lists.append(value)
        return _LATER

    digest = hashlib.sha256()
    texts = json.dumps(inputs, sort_keys=True, default=later).split(json.dumps(_LATER))
    for number, text in enumerate(texts):
        digest.update(text.encode())
        for piece in _pieces(lists[number]) if number < len(lists) else ():
            digest.update(piece.encode())
    return digest.hexdigest()[:16]


def _pieces(entries: Iterator[Any]) -> Iterator[str]:
    """The text of a list, as `json.dumps` makes it."""
    between = "["
    while some := list(itertools.islice(entries, _AT_ONCE)):
        yield between + json.dumps(some, sort_keys=True)[1:-1]
        between = ", "
    yield "[]" if between == "[" else "]"


def sha256_of(path: Path) -> str:
    """Of a file's content, read in pieces; of a large one once a process, as long as it stays as it is."""
    status = path.stat()
    state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return _sha256_once(path, state) if status.st_size > _LARGE else _sha256(path)


@functools.lru_cache(16)
def _sha256_once(path: Path, _: tuple[int, ...]) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(name: str, what: str = "") -> str:
    """Of what is to become `name`. No other process has it, on this machine or on another that shares the disk."""
    return f"{name}{TEMPORARY}{_writer(os.getpid())}{what or uuid.uuid4().hex[:8]}"


def _writer(pid: int) -> str:
    """In the temporary names of a process of this machine."""
    return f"{_host()}-{pid}-"


@cache
def _host() -> str:
    """This machine, or this container: several may have one name, and then processes of one number."""
    name = re.sub(r"[^\w.-]", "_", socket.gethostname())
    try:
        # of this start of the machine, and of the processes that see one another
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        seen = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # another system
        return name
    return f"{name}-{fingerprint([start, seen])[:6]}"


_WRITER = re.compile(rf".*{TEMPORARY}(?P<host>.+)-(?P<pid>\d+)-\w+")


def writer_is_gone(name: str) -> bool | None:
    """Whether the process that made a temporary name has ended; None: nobody can tell, it is on another machine."""
    found = _WRITER.fullmatch(name)
    if found is None or found["host"] != _host() or os.name == "nt":
        return None
    try:
        os.kill(int(found["pid"]), 0)  # asks, and does nothing
        state = Path(f"/proc/{found['pid']}/stat").read_text(encoding="utf-8", errors="replace")
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's, or another system
        return False
    return state.rpartition(")")[2].split()[:1] == ["Z"]  # killed, and nobody has asked how it ended


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


@contextlib.contextmanager
def unless_there(path: Path) -> Iterator[Path]:
    """As `replacing`, but of all that write the file, on any machine, the first one has written it for all."""
    temporary = path.with_name(temporary_name(path.name))
    with removed_if_stopped(temporary):
        try:
            yield temporary
            _sync(temporary)
            try:
                os.link(temporary, path)  # the server refuses the second one, whatever a machine has in its cache
            except FileExistsError:
                return
            except OSError:  # a file system without links
                if not path.exists():
                    os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Makes a finished file, or folder of finished files, durably `path`."""
    if temporary.is_dir():
        for inner in temporary.rglob("*"):
            _sync(inner)
    elif path.is_dir() and not path.is_symlink():  # somebody put a folder there: no file takes its place
        logging.getLogger("sfm_match").warning("%s: a folder; moved to %s", path, set_aside(path).name)
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


def set_aside(path: Path) -> Path:
    """Renames a damaged file or folder to `NAME.damaged`, or `NAME.damaged-2` and so on. Returns where it is."""
    names = itertools.chain([f"{path.name}{DAMAGED}"], (f"{path.name}{DAMAGED}-{n}" for n in itertools.count(2)))
    aside = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    path.rename(aside)
    return aside


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_leftovers(folder: Path, writers: Iterable[int] | None = None) -> None:
    """Deletes what killed writers left.

    Args:
        folder: where they wrote.
        writers: processes of this machine that have ended; None: all, since the caller holds the workspace's lock:
            only a report may be on its way.
    """
    ours = None if writers is None else tuple(f"{TEMPORARY}{_writer(pid)}" for pid in writers)
    for leftover in folder.glob(f"*{TEMPORARY}*"):
        if not _LEFTOVER.fullmatch(leftover.name) or _is_report_on_its_way(leftover.name):
            continue
        if ours is not None and not any(mark in leftover.name for mark in ours):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


_REPORT = tuple(f"{name}{TEMPORARY}" for name in ("report.html", "thumbnails.zip"))


def _is_report_on_its_way(name: str) -> bool:
    """Whether another process of this machine is writing that part of a report, for which it needs no lock."""
    ours = f"{TEMPORARY}{_writer(os.getpid())}"
    return name.startswith(_REPORT) and ours not in name and writer_is_gone(name) is False


def write_shard(
    path: Path,
    arrays: Mapping[str, NDArray[Any] | list[str]],
    attributes: Mapping[str, Any],
    place: Callable[[Path], AbstractContextManager[Path]] = replacing,
    deflated: Collection[str] = (),
    in_bits: Collection[str] = (),
) -> None:
    """Writes one HDF5 file: an array or a list of strings a dataset, metadata in attributes.

    Args:
        path: of the file.
        arrays: its datasets.
        attributes: its metadata.
        place: gives the temporary path and makes it the file: `replacing`, or `unless_there`.
        deflated: names of one-dimensional datasets that HDF5 shuffles and deflates.
        in_bits: of those, of whole numbers, that it stores in as many bits as their range needs ("scale-offset"): where
            all are as likely as others, that is smaller than deflate, and written in a fifth of the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # in memory first: HDF5 can crash the process when the disk is full as it closes a file
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=_LAYOUT) as file:
        file.attrs["schema"] = SCHEMA
        for name, value in attributes.items():
            if isinstance(value, str):
                text = _in_place(value)
                file.attrs.create(name, text[0], dtype=text.dtype)
            else:
                file.attrs[name] = value
        for name, values in arrays.items():
            if isinstance(values, list):
                file[name] = _in_place(*values)
            elif name in deflated and len(values):
                file.create_dataset(name, data=values, chunks=values.shape, shuffle=True, compression=_DEFLATE)
            elif name in in_bits and len(values):
                file.create_dataset(name, data=values, chunks=values.shape, scaleoffset=0)
            else:
                file.create_dataset(name, data=values)
    content = buffer.getbuffer()
    with place(path) as temporary, temporary.open("wb") as out:
        out.write(head_of(content))
        out.write(content)


def _in_place(*texts: str) -> NDArray[Any]:
    """As HDF5 is to store them: padded to one length, unless a heap would be smaller."""
    encoded = [text.encode() for text in texts]
    longest = max(map(len, encoded), default=0) or 1
    if not encoded or longest * len(encoded) > max(_HEAP, sum(map(len, encoded)) + _IN_HEAP * len(encoded)):
        return np.array(texts, dtype=h5py.string_dtype())
    return np.array(encoded, dtype=h5py.string_dtype(length=longest))


@contextlib.contextmanager
def open_shard(path: Path, command: str, *, unchecked: bool = False) -> Iterator[h5py.File]:
    """Opens a shard for reading; every byte that is read is checked.

    Args:
        path: of the file.
        command: that makes it again.
        unchecked: take a file of before there were checksums, too: the caller validates what it reads.

    Raises:
        ShardError: it is damaged, it does not hold what was asked for, or another version of the program wrote it.
        OSError: this process may open no more files, or gets no memory.
    """
    checked: CheckedFile | None = None
    try:
        checked = None if unchecked and is_plain(path) else CheckedFile(path)
        with h5py.File(checked or path, "r") as file:
            if file.attrs.get("schema") not in ((UNCHECKED,) if checked is None else _READABLE):
                raise ValueError(f"schema {file.attrs.get('schema')}, this version reads {SCHEMA}")
            yield file
    except FileNotFoundError:
        raise ShardError(path, "it is not there any more", command) from None
    except PermissionError as error:
        raise SfmMatchError(f"{path}: {error.strerror}") from error
    except _DAMAGE as error:
        if of_the_process(error):
            raise
        told = "not readable as HDF5" if isinstance(error, OSError) else str(error)  # HDF5 says it at length
        raise ShardError(path, (checked and checked.damage) or told, command) from error
    finally:
        if checked is not None:
            checked.close()


def check_bytes(path: Path, command: str) -> None:
    """Reads a whole file that has checksums.

    Raises:
        ShardError: one byte is not as it was written.
        OSError: as `open_shard`.
    """
    try:
        if not is_plain(path):
            with contextlib.closing(CheckedFile(path)) as file:
                file.check_all()
    except (OSError, DamagedFile) as error:
        if of_the_process(error):
            raise
        raise ShardError(path, str(error), command) from error


def damaged_beside(error: ShardError) -> Iterator[ShardError]:
    """The other files of a damaged one's folder that are damaged, too."""
    for path in sorted(error.path.parent.glob("*.h5")):
        if path != error.path:
            try:
                check_bytes(path, error.command)
            except ShardError as other:
                yield other


def read_text(file: h5py.File, name: str) -> str:
    """An attribute that is a string."""
    value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def read_strings(file: h5py.File, name: str) -> list[str]:
    return [str(text) for text in file[name].asstr()[()]]
