"""The demo in small, and that it goes on where it was."""

from pathlib import Path

from sfm_match.commands.demo import demo
from sfm_match.job.progress import StageReport


def test_demo_finds_its_cameras_and_renders_once(tmp_path: Path) -> None:
    reports: list[StageReport] = []
    result = demo(tmp_path, views=7, on_report=reports.append)
    assert result.registered == result.views == 7
    assert result.rotation_median < 0.2
    assert result.position_worst < 50
    assert reports[0].done == 7
    reports.clear()
    assert demo(tmp_path, views=7, on_report=reports.append).registered == 7
    assert all(report.done == 0 for report in reports)
