"""Parts on machines that share a folder: each in mount, process and host name spaces of its own, and without locks.

Two machines' worth of processes on one folder. Both have the same host name, their processes have the same numbers, and
a lock of one is not seen by the other: what is left is what a network file system promises, files that are made under a
name of their own, renames and links.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jobs import stored
from processes import eventually

ROOT = Path(__file__).parents[2]
# /proc of its own, so that a process finds itself in it; the folder is mounted where the other machine has it, too
MACHINE = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
MOUNTED = 'hostname node && mount --bind "$1" "$2" && shift 2 && exec "$@"'
UNITS = """
import sys, sfm_match
from sfm_match.images import collection
from sfm_match.stages import match_blocks
collection.UNIT_SIZE = match_blocks.BLOCK = 2
"""
# as a mount with `nolock`: each machine locks for itself
WITHOUT_LOCKS = """
import contextlib
from sfm_match.job import workspace
class Lock(contextlib.nullcontext):
    is_locked = True
    def __init__(self, path):
        super().__init__()
        self.lock_file = path
    def acquire(self, timeout=-1):
        self.lock_file.touch()
        return self
    def release(self):
        pass
workspace.FileLock = Lock
"""

Machine = Callable[..., "subprocess.Popen[str]"]


@cache
def why_not() -> str | None:
    """Why there can be no other machine here."""
    try:
        tried = subprocess.run([*MACHINE, "sh", "-c", "mount --bind / /mnt"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return tried.stderr.strip() if tried.returncode else None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Starts Python code on a machine; `mounted` in the test's folder is `server` there."""
    if reason := why_not():
        pytest.skip(f"no name spaces of our own here: {reason}")
    for name in ("server", "mounted"):
        (tmp_path / name).mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        shell = ["sh", "-c", MOUNTED, "sh", str(tmp_path / "server"), str(tmp_path / "mounted")]
        command = [*MACHINE, *shell, sys.executable, "-c", UNITS + WITHOUT_LOCKS + code, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SFM_MATCH_CORES": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(*processes: "subprocess.Popen[str]") -> list[str]:
    """What they said. All of them ended well."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


EXTRACT = "sfm_match.extract(sys.argv[1], sys.argv[2], part=sys.argv[3], size=384, max_keypoints=400)\n"
PAIRS = "sfm_match.pairs(sys.argv[1], strategy='exhaustive')\n"
MATCH = "sfm_match.match(sys.argv[1], part=sys.argv[2])\n"
IMPORT = "sfm_match.import_(sys.argv[1])\n"
WHOLE = (
    "sfm_match.run(sys.argv[1], sys.argv[2], size=384, max_keypoints=400, pairs='exhaustive', mapper='none', "
    "report=False)\n"
)


@pytest.fixture(scope="module")
def alone(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process leaves."""
    work = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-c", UNITS + WHOLE, str(rendered), str(work)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return stored(work)


def test_two_machines_leave_what_one_process_leaves(
    rendered: Path, tmp_path: Path, machine: Machine, alone: dict[str, Any]
) -> None:
    work = tmp_path / "mounted" / "work"
    ended(*(machine(EXTRACT, rendered, work, part) for part in ("1/2", "2/2")))
    ended(machine(PAIRS, work))
    ended(*(machine(MATCH, work, part) for part in ("1/3", "2/3", "3/3")))
    ended(machine(IMPORT, work))
    assert stored(tmp_path / "server" / "work") == alone
    assert not list((tmp_path / "mounted").iterdir())  # it was another machine's


WRITTEN_AND_NOT_RENAMED = """
from sfm_match.store import shard
def stopping(temporary, path):
    if path.parent.name == "matches":
        print("half", flush=True)
        input()
    commit(temporary, path)
shard.commit, commit = stopping, shard.commit
"""


def test_a_machine_that_is_lost_is_not_cleaned_up_after(
    rendered: Path, tmp_path: Path, machine: Machine, alone: dict[str, Any]
) -> None:
    """kill -9 between the write and the rename. The other part goes on; a job that is alone waits, then cleans up."""
    work, server = tmp_path / "mounted" / "work", tmp_path / "server" / "work"
    ended(machine(EXTRACT, rendered, work, "1/1"))
    ended(machine(PAIRS, work))
    lost = machine(WRITTEN_AND_NOT_RENAMED + MATCH, work, "1/2")
    assert lost.stdout is not None
    assert lost.stdout.readline() == "half\n"
    ended(machine(MATCH, work, "2/2"))
    half = list((server / "matches").glob("*.tmp-node-*"))
    assert len(half) == 1
    lost.send_signal(signal.SIGKILL)
    lost.wait(30)
    missing = machine(IMPORT, work)
    assert missing.stdout is not None
    assert "worked here a moment ago; looking for up to 90 s whether it still does" in missing.stdout.readline()
    (present,) = (server / "parts").glob("match-1-of-2*")
    os.utime(present, (0, 0))  # a minute and a half later
    assert "pairs are not matched; run `sfm-match match`" in missing.communicate(timeout=60)[0]
    assert not list((server / "matches").glob("*.tmp-*"))
    ended(machine(MATCH, work, "1/2"))
    ended(machine(IMPORT, work))
    assert stored(server) == alone


def test_two_jobs_that_want_the_folder_for_themselves(tmp_path: Path, machine: Machine) -> None:
    """Without locks, too, only one of them works."""
    work = tmp_path / "mounted" / "work"
    first = machine(
        "from sfm_match.job.workspace import Workspace\nfrom pathlib import Path\n"
        "with Workspace(Path(sys.argv[1])):\n    print('here', flush=True)\n    input()\n",
        work,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "here\n"
    for code, arguments in ((IMPORT, [work]), (MATCH, [work, "1/2"])):
        said = machine(code, *arguments).communicate(timeout=60)[0]
        assert "another sfm-match works here (node-" in said
    first.communicate("\n", timeout=60)
    assert first.returncode == 0
    assert eventually(lambda: not list((tmp_path / "server" / "work").glob(".alone*")))
