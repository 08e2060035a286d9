"""What a stage did stays on record when a later run finds it up to date."""

from pathlib import Path

from sfm_match.errors import NothingDone
from sfm_match.job.progress import StageReport
from sfm_match.job.stage_record import read_stages, record_failure, record_stage
from sfm_match.job.workspace import Workspace


def test_times_stay_until_something_is_computed(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    assert read_stages(place) == {}
    record_stage(place, StageReport("match", "pairs", 10, seconds=3.0, spent={"match": 2.5}, facts={"large": [1] * 99}))
    first = read_stages(place)["match"]
    assert (first["done"], first["seconds"], first["spent"]) == (10, 3.0, {"match": 2.5})
    assert "facts" not in first
    record_stage(place, StageReport("match", "pairs", 0, cached=10, seconds=0.1))
    assert read_stages(place)["match"] == first
    record_stage(place, StageReport("match", "pairs", 4, cached=10, seconds=1.0))
    assert read_stages(place)["match"]["seconds"] == 1.0


def test_a_failure_is_replaced_by_what_is_done_later(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    record_failure(place, "reconstruct", NothingDone("no model"))
    assert read_stages(place)["reconstruct"]["error"] == "no model"
    record_stage(place, StageReport("reconstruct", "images", 0, cached=6))
    assert "error" not in read_stages(place)["reconstruct"]


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    for text in ("{", "[1]", '{"match": 3}', '{"match": {"seconds": 1}}'):
        (tmp_path / "stages.json").write_text(text)
        assert read_stages(Workspace(tmp_path)) == {}
