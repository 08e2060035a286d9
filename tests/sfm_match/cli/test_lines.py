"""The lines that a command ends with."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sfm_match.cli.lines import after_run, after_stage, fitted
from sfm_match.job.progress import StageReport

GOOD: dict[str, Any] = {"models": 1, "unregistered": {}, "total": 6, "each_model": [{"odd": []}]}


def ended(pairs: int = 15, done: int = 6, **facts: Any) -> list[StageReport]:
    """Reports of a run's last stages."""
    return [
        StageReport("import", "pairs", pairs if done else 0, 0 if done else pairs, seconds=1.5),
        StageReport("reconstruct", "images", done, seconds=0.5 if done else 0.0, facts=GOOD | facts),
    ]


def test_a_good_run_ends_with_the_model_and_what_is_done_with_it(tmp_path: Path) -> None:
    (last,) = after_run(ended(), tmp_path)
    command = f"sfm-match convert --to nerfstudio --out DIR --workspace {tmp_path}"
    assert last == f"done in 2.0 s: {tmp_path}/sparse/0; next: {command}"
    (tmp_path / "report.html").touch()
    (last,) = after_run(ended(done=0), tmp_path)
    assert last == f"up to date: {tmp_path}/sparse/0, {tmp_path}/report.html; next: {command}"


@pytest.mark.parametrize(
    ("facts", "pairs", "following"),
    [
        ({"each_model": [{"odd": ["far from GPS"]}]}, 15, "report --open"),
        ({"unregistered": {"not placed": 2}}, 10, "report --open"),
        ({"unregistered": {"no accepted pair": 2}}, 15, "report --open"),  # every pair was tried
        ({"unregistered": {"no accepted pair": 2}}, 14, "pairs --strategy repair"),
        ({"models": 2}, 14, "pairs --strategy repair"),
    ],
)
def test_what_is_odd_has_its_cure(facts: dict[str, Any], pairs: int, following: str) -> None:
    *cures, last = after_run(ended(pairs, **facts), Path("workspace"))
    assert f"; next: sfm-match {following}" in last
    assert "--workspace" not in last  # it is the one that is taken without
    assert [cure.partition(":")[0] for cure in cures] == [f"2 {kind}" for kind in facts.get("unregistered", {})]


def test_each_stage_names_the_one_that_follows(tmp_path: Path) -> None:
    place = f"--workspace {tmp_path}"
    (tmp_path / "features").mkdir()
    assert after_stage(StageReport("extract", "images", 6), tmp_path) == f"next: sfm-match pairs {place}"
    assert after_stage(StageReport("import", "pairs", 6), tmp_path) == f"next: sfm-match pairs {place}"
    (tmp_path / "features").rmdir()
    assert after_stage(StageReport("pairs", "pairs", 6), tmp_path) == f"next: sfm-match extract --images DIR {place}"


def test_long_lines_are_broken_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["one " * 15 + "end", "two " * 15 + "end"]
    assert fitted(lines).splitlines() == [lines[0], "  " + lines[1]]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(os.environ, "COLUMNS", "40")
    broken = fitted(lines).splitlines()
    assert max(map(len, broken)) <= 40
    assert [line[:5] for line in broken] == ["one o", "    o", "  two", "    t"]
