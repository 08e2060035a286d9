"""`sparse/sfm-match.json`: what the models of a job were made from, their numbers, and what their files were."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sfm_match.store.records import DamagedRecord, read_json
from sfm_match.store.shard import sha256_of

NAME = "sfm-match.json"
_CURE = "`sfm-match reconstruct` moves the models aside and makes them again"
Files = Mapping[str, int | str]  # below sparse -> the SHA-256, or, by an earlier version, bytes


def read_model_record(sparse: Path) -> dict[str, Any]:
    """What is on record; nothing where there is no record.

    Raises:
        DamagedRecord: it cannot be read, or is not as it was written.
    """
    try:
        record: dict[str, Any] = read_json(sparse / NAME, dict[str, Any], _CURE)
        msgspec.convert(record.get("files"), dict[str, int | str])
    except FileNotFoundError:
        return {}
    except msgspec.ValidationError as error:
        raise DamagedRecord(f"{sparse / NAME}: damaged ({error})", _CURE) from error
    return record


def digests_below(sparse: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {name: sha256_of(sparse / name) for name in files_below(sparse)}


def files_below(sparse: Path) -> list[str]:
    """Names of all files but the record itself."""
    found = (path.relative_to(sparse).as_posix() for path in sorted(sparse.rglob("*")) if not path.is_dir())
    return [name for name in found if name != NAME]


def changed(sparse: Path, files: Files) -> list[str]:
    """Which files are not as they were written, or are gone."""
    return [name for name, known in sorted(files.items()) if not _is(sparse / name, known)]


def _is(path: Path, known: int | str) -> bool:
    if not path.is_file():
        return False
    stat = path.stat()
    if isinstance(known, int):
        return stat.st_size == known
    return _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) == known


@lru_cache(256)
def _sha256(path: Path, *_: int) -> str:
    """Once a process as long as the file stays as it is."""
    return sha256_of(path)
