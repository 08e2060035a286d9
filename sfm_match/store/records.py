"""Reading JSON that another process, version or hand may have written: of the right types, or damaged.

msgspec checks types (also those of dataclasses). Where a flipped bit would change results in silence, records carry a
checksum of themselves.
"""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sfm_match.errors import SfmMatchError
from sfm_match.store.regular import read_regular
from sfm_match.store.shard import fingerprint

T = TypeVar("T")
LARGEST = 1 << 30  # bytes; of a million images, `images.json` has some 400 MB
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
CHECKSUM = "checksum"  # key of a record that carries one
# a workspace may be moved, and people bring these up to date; a wrong one is known by what is not there
_MAY_CHANGE = ("folder", "source", "masks")


class DamagedRecord(SfmMatchError):
    """A record that cannot be read, whose values have other types than they should, or that was changed."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason = reason  # the line without what to do


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
    try:
        content = msgspec.json.decode(read_regular(path, LARGEST))
        if isinstance(content, dict) and schema is not None and content.get("schema") != schema:
            raise OtherSchema(path, content.get("schema"), schema)
        if isinstance(content, dict) and CHECKSUM in content:
            if content[CHECKSUM] != _checksum(content):
                raise DamagedRecord(f"{path}: damaged (it is not as it was written)", cure)
            del content[CHECKSUM]
        return msgspec.convert(content, kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _OF_THE_PROCESS:
            raise
        raise DamagedRecord(f"{path}: {error.strerror}", cure) from error
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise DamagedRecord(f"{path}: damaged ({' '.join(str(error).split())})", cure) from error
