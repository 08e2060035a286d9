"""The demo in small, and that it resumes where it stopped."""

from pathlib import Path

import pytest

from sfm_match.commands.demo import demo
from sfm_match.commands.scene import Rectangle
from sfm_match.job.progress import StageReport


def test_demo_finds_its_cameras_and_renders_once(
    planes: list[Rectangle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfm_match.commands.demo.room", lambda: planes)
    monkeypatch.setattr("sfm_match.commands.scene._SUPERSAMPLING", 1)
    reports: list[StageReport] = []
    result = demo(tmp_path, views=5, on_report=reports.append)
    assert result.registered == result.views == 5
    assert result.rotation_median < 0.2
    assert result.position_worst < 50
    assert reports[0].done == 5
    reports.clear()
    assert demo(tmp_path, views=5, on_report=reports.append).registered == 5
    assert all(report.done == 0 for report in reports)
