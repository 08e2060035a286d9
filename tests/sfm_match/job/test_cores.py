"""How many processors a process may use."""

import os
from pathlib import Path

import pytest

from sfm_match.job import cores as module
from sfm_match.job.cores import cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 8), ("", 8), ("9900000 100000", 8)],
)
def test_a_quota_and_an_affinity(quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(module, "_QUOTA", tmp_path / "cpu.max")
    assert cores() == 8
    (tmp_path / "cpu.max").write_text(quota)
    assert cores() == expected


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("0", 8), ("-1", 8), ("many", 8)])
def test_what_the_environment_says(said: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(module, "_QUOTA", tmp_path / "none")
    monkeypatch.setenv(module.VARIABLE, said)
    assert cores() == expected
