from pathlib import Path

import pytest

from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.job.workspace import Workspace, WorkspaceBusy


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Workspace(tmp_path), pytest.raises(WorkspaceBusy, match="another sfm-match works here"), Workspace(tmp_path):
        pass
    with Workspace(tmp_path):  # the lock goes with its holder
        pass


def test_changed_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    with Workspace(tmp_path) as place:
        place.check("extract", {"size": 1024, "border": 4}, overwrite=False)
        place.note("extract", {"size": 1024, "border": 4})
        place.check("extract", {"size": 1024, "border": 4}, overwrite=False)
        with pytest.raises(UsageError, match=r"extract ran with other options .size was 1024, now 512.*--overwrite"):
            place.check("extract", {"size": 512, "border": 4}, overwrite=False)
        place.check("extract", {"size": 512, "border": 4}, overwrite=True)


def test_damaged_record(tmp_path: Path) -> None:
    with Workspace(tmp_path) as place:
        (tmp_path / "sfm-match.json").write_text("{")
        with pytest.raises(SfmMatchError, match="not readable"):
            place.record()


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--workspace"), Workspace(tmp_path / "file"):
        pass
