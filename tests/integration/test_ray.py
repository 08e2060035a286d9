"""Workers on a Ray cluster leave the same bytes as one process, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import eventually

import sfm_match
from sfm_match.errors import UsageError

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"size": 384, "max_keypoints": 400}
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
JOB = """
import sys, sfm_match
from sfm_match.images import collection
from sfm_match.stages import match_blocks
collection.UNIT_SIZE = match_blocks.BLOCK = 2
images, work, address = sys.argv[1:]
ray = {} if address == "none" else {"ray": address}
sfm_match.extract(images, work, size=384, max_keypoints=400, **ray)
sfm_match.pairs(work)
print(sfm_match.match(work, **ray).detail)
"""


def files(workspace: Path) -> dict[str, bytes]:
    """The content of every file of features and matches."""
    paths = [*workspace.glob("features/*.h5"), *workspace.glob("matches/*.h5")]
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


def started(images: Path, work: Path, address: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", JOB, str(images), str(work), address]
    return subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def done(images: Path, work: Path, address: str) -> str:
    job = started(images, work, address)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def alone(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = tmp_path_factory.mktemp("alone")
    done(rendered, work, "none")
    return files(work)


def processes_of(name: str) -> list[int]:
    """Those whose command line begins with the name."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            if folder.name.isdecimal() and (line.startswith(name) or line.endswith("/" + name)):
                found.append(int(folder.name))
        except OSError:  # it ended
            continue
    return found


def actors() -> list[int]:
    return processes_of("ray::_Actor")


def killed(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    """Nothing of a cluster that was killed stays."""
    yield
    killed([*processes_of("raylet"), *processes_of("gcs_server"), *actors()])


def test_the_same_bytes(rendered: Path, tmp_path: Path, alone: dict[str, bytes]) -> None:
    assert "2 workers" in done(rendered, tmp_path, "local") or os.cpu_count() == 1
    assert len(alone) > 6
    assert files(tmp_path) == alone


@pytest.mark.slow
@pytest.mark.parametrize("at", ["features", "matches"])
def test_an_actor_killed_in_the_middle(rendered: Path, tmp_path: Path, alone: dict[str, bytes], at: str) -> None:
    job = started(rendered, tmp_path, "local")
    assert eventually(lambda: any((tmp_path / at).glob("*.h5")) or job.poll() is not None, 60)
    killed(actors()[:1])
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert files(tmp_path) == alone


@pytest.mark.slow  # Ray needs a minute to notice that its head is gone
@pytest.mark.parametrize("what", ["coordinator", "head"])
def test_the_coordinator_or_the_head_killed(rendered: Path, tmp_path: Path, alone: dict[str, bytes], what: str) -> None:
    job = started(rendered, tmp_path, "local")
    assert eventually(lambda: any((tmp_path / "features").glob("*.h5")) or job.poll() is not None, 60)
    killed([job.pid] if what == "coordinator" else processes_of("gcs_server"))
    job.communicate(timeout=200)
    assert job.returncode != 0
    assert eventually(lambda: not actors(), 60), "actors outlive the job"
    kept = files(tmp_path)
    assert kept
    assert all(alone[name] == content for name, content in kept.items())
    done(rendered, tmp_path, "none")
    assert files(tmp_path) == alone


def test_a_cluster_that_is_not_there(rendered: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"--ray 127\.0\.0\.1:1: no cluster answers"):
        sfm_match.extract(rendered, tmp_path, ray="127.0.0.1:1", **SMALL)
    assert time.monotonic() - start < 20
