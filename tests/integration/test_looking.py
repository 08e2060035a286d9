"""`report`, pictures, `doctor` and `open` look at a workspace while a job runs in it, at every stage of it."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import SMALL
from jobs import CALL
from jobs import sfm_match as command

import sfm_match
from sfm_match.errors import NothingDone

STAGES = ("features", "pairs.txt", "matches", "database.db", "sparse")  # what each leaves


def looked_at(work: Path, pictures: Path) -> None:
    """Everything that looks; what is not there yet is said in a line."""
    for arguments in (
        ("report", "--workspace", work),
        ("doctor", "--workspace", work),
        ("report", "--workspace", work, "--pair", "view04.jpg", "view05.jpg", "--out", pictures / "a.jpg"),
        ("report", "--workspace", work, "--png", pictures / "b.jpg"),
    ):
        done = command(*arguments, *(["--overwrite"] if "doctor" not in arguments else []))
        assert done.returncode in (0, 1, 3), done.stderr
        assert "internal error" not in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1, done.stderr
    try:
        results = sfm_match.open(work)
        assert len(results.images) in (0, 6)
        for name in results.feature_set.counts:
            assert len(results.features(name).keypoints)
    except NothingDone:
        pass


def test_at_every_stage(rendered: Path, tmp_path: Path) -> None:
    work, tests = tmp_path / "work", Path(__file__).parents[1]
    options = ["--images", rendered, "--workspace", work, "--pairs", "exhaustive", *SMALL, "--workers", 1]
    process = subprocess.Popen(
        [sys.executable, "-c", "import one_thread\n" + CALL, "run", *map(str, options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests)))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = set()
    try:
        while process.poll() is None:
            if (work / "images.json").exists():
                seen.add(sum((work / name).exists() for name in STAGES))
                looked_at(work, tmp_path)
        assert process.returncode == 0, process.stderr.read() if process.stderr is not None else ""
    finally:
        process.kill()
        process.communicate()
    assert len(seen) >= 2, seen  # of the states that a job goes through
    looked_at(work, tmp_path)
    assert (tmp_path / "a.jpg").exists()
    assert (tmp_path / "b.jpg").exists()
    assert '"level":"good"' in (work / "report.html").read_text(encoding="utf-8")
    assert not list(work.glob("*.tmp-*"))


READER = """
import sqlite3, sys, time
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.execute("BEGIN")
connection.execute("SELECT COUNT(*) FROM images").fetchall()
print("reading", flush=True)
time.sleep(3)
"""


def test_who_reads_the_database_does_not_stop_the_mapper(workspace: Path) -> None:
    """COLMAP fails at once where somebody reads a database that it wants to open, as long as its log is off."""
    command = [sys.executable, "-c", READER, str(workspace / "database.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        assert sfm_match.reconstruct(workspace, overwrite=True).done == 6
    assert not list(workspace.glob("database.db-*"))
