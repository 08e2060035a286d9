"""Exported files and the record of their check against torch."""

from dataclasses import dataclass
from pathlib import Path

from sfm_match.errors import NothingDone
from sfm_match.store.records import read_json
from sfm_match.store.shard import sha256_of


@dataclass(frozen=True)
class _Parity:
    """What the record of a check says."""

    sha256: str  # of the file that was checked
    passed: bool


def refuse_failed_export(path: Path) -> None:
    """Raises NothingDone where a file is missing, or its parity record says that it is not what torch computes."""
    if not path.is_file():
        raise NothingDone(f"{path}: no such file; make it with `sfm-match export onnx`")
    record_path = path.with_suffix(".parity.json")
    try:
        record = read_json(record_path, _Parity, "export it again")
    except FileNotFoundError:
        return
    if record.sha256 != sha256_of(path):
        raise NothingDone(f"{path}: not the file that {record_path.name} speaks of; export it again")
    if not record.passed:
        raise NothingDone(f"{path}: failed its parity check against torch ({record_path.name}); export it again")
