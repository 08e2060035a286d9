"""Processes that do parts of a stage in one folder leave the same bytes as one process does."""

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from processes import eventually

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.job import presence
from sfm_match.job.presence import others_present
from sfm_match.job.workspace import Workspace, WorkspaceBusy

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"size": 384, "max_keypoints": 400}


def files(workspace: Path) -> dict[str, bytes]:
    """The content of every file of features and matches, and of the database."""
    paths = [*workspace.glob("features/*"), *workspace.glob("matches/*"), workspace / "failed.csv"]
    paths += workspace.glob("database.db")
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


@pytest.fixture
def alone(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What one process leaves, in units of two images."""
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 2)
    monkeypatch.setattr("sfm_match.stages.match_blocks.BLOCK", 2)
    work = tmp_path / "alone"
    sfm_match.extract(rendered, work, **SMALL)
    sfm_match.pairs(work)
    sfm_match.match(work)
    sfm_match.import_(work)
    return work


def test_parts_at_once_and_one_after_another(rendered: Path, tmp_path: Path, alone: Path) -> None:
    work = tmp_path / "parts"
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda part: sfm_match.extract(rendered, work, part=part, **SMALL), ["1/2", "2/2"]))
    assert sorted(report.done for report in reports) == [2, 4]
    assert any("every part is done" in report.detail for report in reports)
    sfm_match.pairs(work)
    with pytest.raises(NothingDone, match="no matches yet; run `sfm-match match`"):
        sfm_match.import_(work)
    matched = [sfm_match.match(work, part=part) for part in ("3/3", "1/3")]
    assert f"part 1/3; {15 - sum(one.done for one in matched)} pairs of other parts are open" in matched[1].detail
    with pytest.raises(NothingDone, match="pairs are not matched"):
        sfm_match.import_(work)
    last = sfm_match.match(work, part="2/3")
    assert "every part is done" in last.detail
    assert sum(one.done for one in (*matched, last)) == 15
    sfm_match.import_(work)
    assert len(files(work)) > 7
    assert files(work) == files(alone)
    assert sfm_match.match(work).done == 0
    assert not list((work / "parts").iterdir())


KILLED = """
import os, signal, sys, sfm_match
from sfm_match.images import collection
from sfm_match.stages import match_blocks
from sfm_match.store import features, matches
collection.UNIT_SIZE = match_blocks.BLOCK = 2
def killed(path, *rest, **keywords):
    written(path.with_name(path.name + ".tmp-here-1-1"), *rest, **keywords)  # half of a write
    os.kill(os.getpid(), signal.SIGKILL)
written = features.write_shard
features.write_shard = matches.write_shard = killed
images, work, stage = sys.argv[1:]
if stage == "extract":
    sfm_match.extract(images, work, part="2/2", size=384, max_keypoints=400)
else:
    sfm_match.match(work, part="2/2")
"""


def killed(images: Path, work: Path, stage: str) -> None:
    """The second part of a stage, killed with -9 as it writes its first file."""
    command = [sys.executable, "-c", KILLED, str(images), str(work), stage]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == -signal.SIGKILL


def test_a_part_that_was_killed_is_done_again(rendered: Path, tmp_path: Path, alone: Path) -> None:
    work = tmp_path / "parts"
    killed(rendered, work, "extract")
    assert list((work / "features").iterdir())
    sfm_match.extract(rendered, work, part="1/2", **SMALL)  # others do not wait for it, nor clean up after it
    assert list((work / "features").glob("*.tmp-*"))
    sfm_match.extract(rendered, work, part="2/2", **SMALL)
    dead = list((work / "parts").iterdir())
    assert len(dead) == 1
    sfm_match.pairs(work)  # it was a process of this machine, and is gone
    assert not list((work / "features").glob("*.tmp-*"))
    killed(rendered, work, "match")
    sfm_match.match(work, part="1/2")
    assert list((work / "matches").glob("*.tmp-*"))
    with pytest.raises(NothingDone, match="pairs are not matched"):
        sfm_match.import_(work)
    sfm_match.match(work, part="2/2")
    sfm_match.import_(work)
    assert files(work) == files(alone)


def test_a_part_on_a_machine_that_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here can tell that it is dead, before it has been silent for long. It is not, where it says so again."""
    (tmp_path / "parts").mkdir()
    lost = tmp_path / "parts" / "extract-2-of-2.tmp-elsewhere-1-0123abcd"
    lost.touch()
    times = itertools.count(time.time() + 1)
    monkeypatch.setattr(time, "sleep", lambda _: os.utime(lost, (0, next(times))))
    with (
        pytest.raises(WorkspaceBusy, match=r"parts of this job are at work \(extract-2-of-2\.tmp-"),
        Workspace(tmp_path),
    ):
        pass
    old = time.time() - 2 * presence.STALE_SECONDS
    os.utime(lost, (old, old))
    with Workspace(tmp_path):
        assert not lost.exists()


def test_parts_and_a_job_that_is_alone_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.job.presence.TOUCH_SECONDS", 0.02)
    with Workspace(tmp_path, part="match-1-of-2"), Workspace(tmp_path, part="match-2-of-2") as place:
        with pytest.raises(WorkspaceBusy, match=r"\(match-1-of-2.*, match-2-of-2"), Workspace(tmp_path):
            pass
        files = list(place.parts.iterdir())
        for file in files:  # they are touched, whatever the clock says
            os.utime(file, (0, 0))
        assert eventually(lambda: len(others_present(place.parts)) == 2)
    with Workspace(tmp_path), pytest.raises(WorkspaceBusy, match="another sfm-match"):  # noqa: SIM117
        with Workspace(tmp_path, part="match-1-of-2"):
            pass


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/", "a/b", "1/0", "-1/2", "1/1000000", "٣/٤"])
def test_parts_that_are_none(part: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--part .*: must be i/n with 1 <= i <= n"):
        sfm_match.match(tmp_path, part=part)
