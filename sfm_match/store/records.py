"""Reading JSON that another process, version or hand may have written: of the right types, or damaged.

msgspec checks types (also those of dataclasses). Where a flipped bit would change results in silence, records carry a
checksum of themselves.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_type_hints

import msgspec

from sfm_match.errors import SfmMatchError
from sfm_match.store.regular import of_the_process, open_regular, read_regular
from sfm_match.store.shard import fingerprint, replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")
LARGEST = 1 << 30  # bytes; of a million images, `images.json` has some 400 MB
CHECKSUM = "checksum"  # key of a record that carries one
# a workspace may be moved, and people bring these up to date; a wrong one is known by what is not there
_MAY_CHANGE = ("folder", "source", "masks")
_AT_ONCE = 4096  # entries that are in memory as JSON, or as objects; each so many have a line of the file
_DIGITS = 16  # of a digest
_BUFFER = 1 << 18  # bytes
# lines around the entries of a list; JSON as others write it has none that are like them
_OPENING, _CLOSING = re.compile(rb',"(\w+)":\[\n'), b"]\n"


class DamagedRecord(SfmMatchError):
    """A record that cannot be read, whose values have other types than they should, or that was changed."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason = reason  # the line without what to do


class ImpossibleEntry(Exception):
    """An entry of the right types that cannot be; the message says why."""


class OtherSchema(SfmMatchError):
    """A record of another version of the program; `found` is its number, or `unknown`."""

    def __init__(self, path: Path, found: object, expected: int) -> None:
        self.found = found if isinstance(found, int) else "unknown"
        super().__init__(
            f"{path}: made by another version of sfm-match (schema {self.found}, this one reads {expected})"
        )


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its checksum. Entries that name folders may be changed."""
    return {**content, CHECKSUM: _checksum(content)}


def _checksum(content: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in content.items() if key not in (CHECKSUM, *_MAY_CHANGE)})


def read_json(path: Path, kind: type[T], cure: str, schema: int | None = None) -> T:
    """The content of a JSON file, as `kind`: a dataclass, or a type such as `dict[str, int]`.

    Args:
        path: of the file.
        kind: what it has to hold; further keys of objects are passed over, and so is the checksum.
        cure: what to do about a damaged one, as the end of its line.
        schema: that the record has to be of, if it is an object.

    Raises:
        FileNotFoundError: there is none.
        OSError: this process may open no more files, or has no memory; the record may be whole.
        OtherSchema: it is of another one.
        DamagedRecord: it cannot be read, is not JSON in UTF-8, holds something else, or is not as it was written where
            it carries a checksum; the line names the field.
    """
    with _damage(path, cure):
        content = msgspec.json.decode(read_regular(path, LARGEST))
        if isinstance(content, dict) and schema is not None and content.get("schema") != schema:
            raise OtherSchema(path, content.get("schema"), schema)
        if isinstance(content, dict) and CHECKSUM in content:
            if content[CHECKSUM] != _checksum(content):
                raise DamagedRecord(f"{path}: damaged (it is not as it was written)", cure)
            del content[CHECKSUM]
        return msgspec.convert(content, kind)


@contextmanager
def _damage(path: Path, cure: str) -> Iterator[None]:
    """What reading JSON raises, as `read_json` says it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if of_the_process(error):
            raise
        raise DamagedRecord(f"{path}: {error.strerror}", cure) from error
    except (msgspec.DecodeError, RecursionError, UnicodeError, ImpossibleEntry) as error:
        raise DamagedRecord(f"{path}: damaged ({' '.join(str(error).split())})", cure) from error


@dataclass(frozen=True)
class _Head:
    """What is looked at before the entries of a large record."""

    schema: Any = None
    checksum: Any = None


def read_entries(
    path: Path, kind: "type[D]", cure: str, schema: int, gathered: "Callable[[D, str, Iterator[Any]], Sequence[Any]]"
) -> "tuple[D, str | None]":
    """As `read_json`, of a record with very many entries: a piece of them at a time is in memory as it is in the file.

    Args:
        path: of the file.
        kind: what it has to hold, a dataclass.
        cure: what to do about a damaged one, as the end of its line.
        schema: that the record has to be of.
        gathered: makes of the content (its lists empty where `write_entries` wrote the file), the key of a list and its
            entries what the list is in the content; it takes all entries, and raises ImpossibleEntry.

    Returns:
        The content and its `entries_digest`; None where the file carries another checksum, as those of before did, or
        none.
    """
    with _damage(path, cure), io.BufferedReader(open_regular(path, LARGEST), _BUFFER) as file:
        text, lists = _outline(file)
        head = msgspec.json.decode(text, type=_Head)
        if head.schema != schema:
            raise OtherSchema(path, head.schema, schema)
        content = msgspec.json.decode(text, type=kind)
        del text  # of a file that was written in another way, all that is in it
        types, digest, found = get_type_hints(kind), _Digest(), {}
        for field, value in _entries(content):
            digest.begin(field)
            if _many(value):
                entries = _listed(file, lists[field], types[field]) if field in lists else iter(value)
                found[field] = gathered(content, field, _on_their_way(entries, digest))
            else:
                digest.add(msgspec.json.encode(value))
        content = replace(content, **found)
        if head.checksum is None:
            return content, None
        if head.checksum == str(digest):
            return content, head.checksum
        file.seek(0)
        if head.checksum != _checksum(msgspec.json.decode(file.read())):
            raise DamagedRecord(f"{path}: damaged (it is not as it was written)", cure)
        return content, None


def _outline(file: BinaryIO) -> tuple[bytearray, dict[str, int]]:
    """The text of a record without the entries that have lines of their own, and where in the file those begin."""
    text, lists = bytearray(), dict[str, int]()
    while line := file.readline():
        text += line
        if opening := _OPENING.fullmatch(line):
            lists[opening[1].decode()] = file.tell()
            while (line := file.readline()) not in (_CLOSING, b""):
                pass
            text += line
    return text, lists


def _listed(file: BinaryIO, start: int, kind: Any) -> Iterator[Any]:
    """The entries of a list, a line of them at a time."""
    decoder = msgspec.json.Decoder(kind)
    file.seek(start)
    while (line := file.readline()) not in (_CLOSING, b""):
        yield from decoder.decode(b"[" + line.removeprefix(b",") + b"]")


def _on_their_way(entries: Iterator[Any], digest: "_Digest") -> Iterator[Any]:
    """The entries, which go into the digest."""
    for some in _pieces(entries):
        digest.add(msgspec.json.encode(some))
        yield from some


def write_entries(path: Path, content: "DataclassInstance", schema: int) -> str:
    """Writes a record that `read_entries` reads. Returns its digest."""
    digest = _Digest()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(b'{"schema":%d\n' % schema)
        for field, value in _entries(content):
            digest.begin(field)
            encoded = (digest.add(msgspec.json.encode(some)) for some in _parts(value))
            if not _many(value):
                file.write(b',"%s":%s\n' % (field.encode(), next(encoded)))
                continue
            file.write(b',"%s":[\n' % field.encode())
            for number, some in enumerate(encoded):
                file.write(b"%s%s\n" % (b"," if number else b"", some[1:-1]))
            file.write(_CLOSING)
        file.write(b',"%s":"%s"}\n' % (CHECKSUM.encode(), str(digest).encode()))
    return str(digest)


def entries_digest(content: "DataclassInstance") -> str:
    """Of a record's entries, but for those that name folders: it does not depend on how the JSON is laid out."""
    digest = _Digest()
    for field, value in _entries(content):
        digest.begin(field)
        for some in _parts(value):
            digest.add(msgspec.json.encode(some))
    return str(digest)


class _Digest:
    """`entries_digest`, a part of the content after another."""

    def __init__(self) -> None:
        self._sum, self._counts = hashlib.sha256(), False

    def begin(self, field: str) -> None:
        """What is added next is of this field."""
        self._counts = field not in _MAY_CHANGE
        self.add(field.encode())

    def add(self, some: bytes) -> bytes:
        """Returns what was added."""
        if self._counts:
            self._sum.update(some)
        return some

    def __str__(self) -> str:
        return self._sum.hexdigest()[:_DIGITS]


def _entries(content: "DataclassInstance") -> list[tuple[str, Any]]:
    return [(field.name, getattr(content, field.name)) for field in fields(content)]


def _many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _parts(value: Any) -> Iterable[Any]:
    """What is encoded of a value, one after another."""
    return _pieces(value) if _many(value) else (value,)


def _pieces(entries: Iterable[Any]) -> Iterator[list[Any]]:
    """So many at once; of none, one that is empty."""
    entries = iter(entries)
    yield list(islice(entries, _AT_ONCE))
    while some := list(islice(entries, _AT_ONCE)):
        yield some
