"""The workspace's lock and record."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.job.workspace import SCHEMA, RecordError, Workspace, WorkspaceBusy
from sfm_match.store.records import sealed

FACTS = {"size": 1024, "border": 4, "subpixel": True, "masks": None, "detector.onnx": "0abc"}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Workspace(tmp_path), pytest.raises(WorkspaceBusy, match="another sfm-match works here"), Workspace(tmp_path):
        pass
    with Workspace(tmp_path):  # the lock goes with its holder
        pass


def test_changed_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    with Workspace(tmp_path) as place:
        place.check("extract", FACTS, overwrite=False)
        place.write_record("extract", FACTS)
        place.check("extract", FACTS, overwrite=False)
        changed = {**FACTS, "size": 512, "subpixel": False, "masks": "/masks", "detector.onnx": "1def"}
        with pytest.raises(UsageError) as caught:
            place.check("extract", changed, overwrite=False)
        shown = "detector.onnx was 0abc, now 1def, --masks was none, now /masks, --size was 1024, now 512"
        assert f"extract ran with other options ({shown}, --subpixel was on, now off); give" in str(caught.value)
        assert "add --overwrite" in str(caught.value)
        place.check("extract", changed, overwrite=True)


def test_the_record_has_a_schema(tmp_path: Path) -> None:
    with Workspace(tmp_path) as place:
        assert place.read_record() == {}
        place.write_record("extract", FACTS)
        place.write_record("match", {"match_threshold": 0.1})
        written = json.loads((tmp_path / "sfm-match.json").read_text())
    assert written == sealed({"schema": SCHEMA, "extract": FACTS, "match": {"match_threshold": 0.1}})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", r"sfm-match.json: damaged \(.*\); .*; or choose another --workspace, or begin anew with"),
        ('{"schema": 1, "extract": 3.5}', r"sfm-match.json: damaged \(Expected `int \| object`, got `float`"),
        ("[]", "sfm-match.json: damaged"),
        ('{"extract": {}}', r"another version of sfm-match \(schema unknown, this one reads \d+\); choose another"),
        ('{"schema": 99}', r"another version of sfm-match \(schema 99, .* `sfm-match extract --overwrite`"),
    ],
)
def test_a_record_that_is_not_ours(record: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sfm-match.json").write_text(record)
    with pytest.raises(RecordError, match=message) as caught, Workspace(tmp_path):
        pass
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RecordError):  # not opened, as `plan`
        Workspace(tmp_path).read_record()
    with Workspace(tmp_path, overwrite=True) as place:  # the lock was given back
        assert place.read_record() == {}
    assert (tmp_path / "sfm-match.json").read_text() == record  # nothing is written before there is a result


def test_beginning_anew_keeps_results_apart(tmp_path: Path) -> None:
    (tmp_path / "sfm-match.json").write_text('{"extract": {"size": 256}}')
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    for name in ("pairs.txt", "pairs-added.txt", "database.db", "database.db-wal", "unregistered.csv", "notes.txt"):
        (tmp_path / name).write_text(name)
    with Workspace(tmp_path, overwrite=True) as place:
        place.write_record("extract", FACTS)
        place.write_record("made by", {})
    expected = sealed({"schema": SCHEMA, "extract": FACTS, "made by": {}})
    assert json.loads((tmp_path / "sfm-match.json").read_text()) == expected
    kept = {path.name for path in (tmp_path / "earlier-1").iterdir()}
    assert kept == {"pairs.txt", "pairs-added.txt", "database.db", "database.db-wal", "unregistered.csv", "sparse"}
    assert {path.name for path in tmp_path.iterdir()} == {"sfm-match.json", "notes.txt", ".lock", "earlier-1"}


def test_what_is_not_a_workspace_of_ours_stays_in_place(tmp_path: Path) -> None:
    (tmp_path / "database.db").write_text("theirs")
    with Workspace(tmp_path, overwrite=True) as place:
        place.write_record("extract", FACTS)
    assert (tmp_path / "database.db").read_text() == "theirs"


def test_a_job_begins_anew_where_another_version_worked(tmp_path: Path) -> None:
    work, images = tmp_path / "work", tmp_path / "images"
    images.mkdir()
    Image.effect_noise((96, 64), 80).save(images / "a.png")
    small: dict[str, Any] = {"size": 64, "max_keypoints": 50}
    sfm_match.extract(images, work, **small)
    record = json.loads((work / "sfm-match.json").read_text())
    (work / "sfm-match.json").write_text(json.dumps({"extract": {**record["extract"], "threshold": 0.0}}))
    (work / "pairs.txt").write_text("")
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    for refused in (
        lambda: sfm_match.extract(images, work, **small),
        lambda: sfm_match.run(images, work, **small),
        lambda: sfm_match.plan(images, work, **small),
        lambda: sfm_match.pairs(work, overwrite=True),
        lambda: sfm_match.match(work, overwrite=True),
    ):
        with pytest.raises(UsageError, match=r"work: made by another version of sfm-match \(schema unknown"):
            refused()
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    findings = {finding.what: finding for finding in sfm_match.doctor(work).findings}
    assert findings["workspace"].trouble
    assert "made by another version" in findings["workspace"].state
    sfm_match.extract(images, work, overwrite=True, **small)
    assert json.loads((work / "sfm-match.json").read_text())["schema"] == SCHEMA
    assert (work / "earlier-1" / "pairs.txt").exists()
    assert sfm_match.extract(images, work, **small).done == 0


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--workspace"), Workspace(tmp_path / "file"):
        pass


@pytest.mark.parametrize("fails", [True, False])
def test_a_folder_that_is_deleted_under_a_stage_is_said_so(tmp_path: Path, fails: bool) -> None:
    place = tmp_path / "job"
    with Workspace(place) as workspace:
        with pytest.raises(ValueError, match="of its own"), workspace.not_deleted("match"):
            raise ValueError("of its own")
        with pytest.raises(NothingDone, match="job: deleted while match ran"), workspace.not_deleted("match"):
            shutil.rmtree(place)
            if fails:
                raise ValueError("of another library")
