"""The report at the end of a run: of a finished one, of one that gives no model, of none."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import FINISHED
from jobs import sfm_match as command
from processes import no_more_files

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.job.workspace import Workspace
from sfm_match.reporting.page import up_to_date


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """Three pictures of noise, each its own."""
    images, random = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.png"), random.integers(0, 256, (240, 320, 3), np.uint8))
    return images


def test_a_run_writes_it_once(rendered: Path, workspace: Path) -> None:
    report = workspace / "report.html"
    before = report.stat().st_mtime_ns
    reports = sfm_match.run(rendered, workspace, pairs="exhaustive", **FINISHED)
    assert [one.stage for one in reports] == ["extract", "pairs", "match", "import", "reconstruct"]
    assert report.stat().st_mtime_ns == before
    report.unlink()
    sfm_match.run(rendered, workspace, pairs="exhaustive", report=False, **FINISHED)
    assert not report.exists()


def test_a_process_that_may_open_no_more_files_writes_no_page(finished: Path, tmp_path: Path) -> None:
    """It would say that photographs are gone, and stay."""
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    sfm_match.report(work)
    page = (work / "report.html").read_bytes()
    with pytest.raises(OSError, match="Too many open files"), no_more_files():
        sfm_match.report(work, overwrite=True)
    assert (work / "report.html").read_bytes() == page


def test_without_a_model_it_says_why(strangers: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(NothingDone, match=r"have nothing in common .*; see .*report\.html"):
        sfm_match.run(strangers, work, size=320)
    text = (work / "report.html").read_text(encoding="utf-8")
    assert "these 3 images have nothing in common" in text
    assert '"level":"bad"' in text
    (work / "report.html").unlink()
    options: list[Any] = ["--images", strangers, "--workspace", work, "--size", 320]
    done = command("run", *options, "--no-report")
    assert done.returncode == 3
    assert "report.html" not in done.stderr
    assert not (work / "report.html").exists()


def test_somebody_elses_page_is_refused_before_the_job(strangers: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "report.html").write_text("mine")
    with pytest.raises(UsageError, match="not made by sfm-match"):
        sfm_match.run(strangers, work, size=320)
    assert {path.name for path in work.iterdir()} <= {"report.html", ".lock"}


def test_the_command(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    done = command("report", "--workspace", workspace, "--open")
    assert done.returncode == 0
    assert "6 of 6 images are registered, in one model." in done.stdout
    assert shown == [(workspace / "report.html").as_uri()]
    assert command("report", "--workspace", workspace / "none").returncode == 3
    pictures: list[Any] = [
        "--pair",
        "view04.jpg",
        "view05.jpg",
        "--out",
        tmp_path / "a.png",
        "--png",
        tmp_path / "b.jpg",
    ]
    drawn = command("report", "--workspace", workspace, *pictures)
    assert (drawn.returncode, drawn.stdout.split()) == (0, [str(tmp_path / "a.png"), str(tmp_path / "b.jpg")])
    again = command("report", "--workspace", workspace, *pictures)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    told = json.loads(command("report", "--workspace", workspace, *pictures, "--overwrite", "--json").stdout)
    assert told["pictures"] == drawn.stdout.split()


def test_after_a_single_stage_it_is_not_of_before(
    workspace: Path, rendered: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = workspace / "report.html"
    page = report.read_bytes()
    sfm_match.reconstruct(workspace)
    assert report.read_bytes() == page
    sfm_match.reconstruct(workspace, min_model_size=2, seed=3, overwrite=True)
    assert report.read_bytes() != page
    assert up_to_date(Workspace(workspace))
    sfm_match.pairs(workspace, strategy="sequential", overlap=1, overwrite=True)
    assert "shows what was before" in caplog.text
    assert not up_to_date(Workspace(workspace))
    report.write_text("mine")
    caplog.clear()
    sfm_match.match(workspace)
    assert report.read_text() == "mine"
    report.unlink()
    sfm_match.extract(rendered, workspace, size=320, max_keypoints=400)
    assert not report.exists()
    assert not caplog.text
