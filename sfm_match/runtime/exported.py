"""Exported files and the record of their check against torch."""

import json
from pathlib import Path

from sfm_match.errors import NothingDone
from sfm_match.store.shard import sha256_of


def refuse_failed_export(path: Path) -> None:
    """Raises NothingDone where a file is missing, or its parity record says that it is not what torch computes."""
    if not path.is_file():
        raise NothingDone(f"{path}: no such file; make it with `sfm-match export onnx`")
    record_path = path.with_suffix(".parity.json")
    if not record_path.is_file():
        return
    record = json.loads(record_path.read_text(encoding="utf-8"))
    if record["sha256"] != sha256_of(path):
        raise NothingDone(f"{path}: not the file that {record_path.name} speaks of; export it again")
    if not record["passed"]:
        raise NothingDone(f"{path}: failed its parity check against torch ({record_path.name}); export it again")
