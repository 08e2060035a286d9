from pathlib import Path

import pytest

from sfm_match.errors import SfmMatchError
from sfm_match.runtime.exported import refuse_failed_export
from sfm_match.store.shard import sha256_of


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"sha256": 5, "passed": true}', '{"sha256": "", "passed": 1}'])
def test_a_damaged_record_of_a_check_is_a_line(tmp_path: Path, record: str) -> None:
    (tmp_path / "net.onnx").write_bytes(b"network")
    (tmp_path / "net.parity.json").write_text(record)
    with pytest.raises(SfmMatchError, match=r"net\.parity\.json: damaged \(.*\); export it again"):
        refuse_failed_export(tmp_path / "net.onnx")


def test_a_check_that_was_passed(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"network")
    refuse_failed_export(tmp_path / "net.onnx")  # nobody checked it
    digest = sha256_of(tmp_path / "net.onnx")
    (tmp_path / "net.parity.json").write_text(f'{{"sha256": "{digest}", "passed": true, "more": 1}}')
    refuse_failed_export(tmp_path / "net.onnx")
