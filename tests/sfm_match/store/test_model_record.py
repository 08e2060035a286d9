"""The record of the models says whether their files are as they were written."""

import json
from pathlib import Path

import pytest

from sfm_match.store.model_record import changed, digests_below, files_below, read_model_record
from sfm_match.store.records import DamagedRecord, sealed


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "images.bin").write_bytes(b"abc")
    files = {"files": digests_below(tmp_path)}
    (tmp_path / "sfm-match.json").write_text(json.dumps(sealed(files)))
    return tmp_path


def test_an_edit_of_the_same_size_shows(sparse: Path) -> None:
    files = read_model_record(sparse)["files"]
    assert (changed(sparse, files), files_below(sparse)) == ([], ["0/images.bin"])
    (sparse / "0" / "images.bin").write_bytes(b"abd")
    assert changed(sparse, files) == ["0/images.bin"]
    (sparse / "0" / "images.bin").unlink()
    assert changed(sparse, files) == ["0/images.bin"]


def test_sizes_of_before_are_still_compared(sparse: Path) -> None:
    assert changed(sparse, {"0/images.bin": 3}) == []
    assert changed(sparse, {"0/images.bin": 4}) == ["0/images.bin"]


def test_a_record_that_is_not_as_it_was_written(sparse: Path) -> None:
    path = sparse / "sfm-match.json"
    whole = path.read_text()
    for content in (whole.replace("images", "imagez"), "[1]", "{}", '{"files": 3}', '{"files": {"a": []}}'):
        path.write_text(content)
        with pytest.raises(DamagedRecord, match="makes them again"):
            read_model_record(sparse)
    path.unlink()
    assert read_model_record(sparse) == {}
