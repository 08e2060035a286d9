"""Workers on a Ray cluster leave the same bytes as one process, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import eventually, gone, marked

import sfm_match
from sfm_match.errors import UsageError

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"size": 384, "max_keypoints": 400}
MARK = uuid.uuid4().hex  # of all processes of these tests
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GPU_CHECK_TEST": MARK,
}
JOB = """
import sys, sfm_match
from sfm_match.images import collection
from sfm_match.refine import keypoints
from sfm_match.stages import match_blocks
collection.UNIT_SIZE = match_blocks.BLOCK = keypoints.UNIT = 2
images, work, address = sys.argv[1:]
ray = {} if address == "none" else {"ray": address}
sfm_match.extract(images, work, size=384, max_keypoints=400, **ray)
sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_threshold=0.01, **ray)
print(sfm_match.match(work, **ray).detail)
sfm_match.import_(work, **ray)
"""
# a cluster of this machine and another one, each with a processor for one actor; said is where, and the other's number
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
(raylet,) = other.all_processes["raylet"]
print(cluster.address, raylet.process.pid, flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


def files(workspace: Path) -> dict[str, bytes]:
    """The content of every file of features and matches, of the list of pairs and of the database."""
    kinds = ("features/*.h5", "pairs.txt", "matches/*.h5", "database.db")
    paths = [path for kind in kinds for path in workspace.glob(kind)]
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def done(images: Path, work: Path, address: str) -> str:
    job = python(JOB, images, work, address)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def alone(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = tmp_path_factory.mktemp("alone")
    done(rendered, work, "none")
    return files(work)


def processes_of(name: str) -> list[int]:
    """Those of these tests whose command line begins with the name. An actor has another environment: its parent's."""
    ours, found = set(marked(MARK)), []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            named = line.startswith(name) or line.endswith("/" + name)
        except (OSError, ValueError, IndexError):  # it ended, or is no process
            continue
        if folder.name.isdecimal() and named and {int(folder.name), parent} & ours:
            found.append(int(folder.name))
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
    killed([*actors(), *marked(MARK)])


def test_the_same_bytes(rendered: Path, tmp_path: Path, alone: dict[str, bytes]) -> None:
    assert "2 workers" in done(rendered, tmp_path, "local") or os.cpu_count() == 1
    assert len(alone) > 7
    assert files(tmp_path) == alone


@pytest.mark.slow
@pytest.mark.parametrize("at", ["features", "matches", "database.aligned"])
def test_an_actor_killed_in_the_middle(rendered: Path, tmp_path: Path, alone: dict[str, bytes], at: str) -> None:
    job = python(JOB, rendered, tmp_path, "local")
    assert eventually(lambda: any((tmp_path / at).glob("*.h5")) or job.poll() is not None, 60)
    dying = actors()[:1]
    assert dying
    killed(dying)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert files(tmp_path) == alone


@pytest.mark.slow  # Ray needs a minute to notice that its head is gone
@pytest.mark.parametrize("what", ["coordinator", "gcs_server", "raylet"])
def test_the_coordinator_or_the_head_killed(rendered: Path, tmp_path: Path, alone: dict[str, bytes], what: str) -> None:
    job = python(JOB, rendered, tmp_path, "local")
    assert eventually(lambda: any((tmp_path / "features").glob("*.h5")) or job.poll() is not None, 60)
    running = actors()
    dying = [job.pid] if what == "coordinator" else processes_of(what)
    assert dying
    killed(dying)
    said, _ = job.communicate(timeout=200)
    assert job.returncode != 0
    assert (
        "--ray: the cluster is lost (none of its machines is left); completed work is kept" in said or what != "raylet"
    )
    assert all(gone(actor, 60) for actor in running), "actors outlive the job"
    kept = files(tmp_path)
    assert kept
    assert all(alone[name] == content for name, content in kept.items())
    done(rendered, tmp_path, "none")
    assert files(tmp_path) == alone


@pytest.mark.slow
def test_a_machine_of_the_cluster_lost(rendered: Path, tmp_path: Path, alone: dict[str, bytes]) -> None:
    """Its actor's units are done by the other machine's, although the cluster has no place for another actor."""
    cluster = python(CLUSTER)
    assert cluster.stdout is not None
    address, raylet = cluster.stdout.readline().split()
    job = python(JOB, rendered, tmp_path, address)
    assert eventually(lambda: len(actors()) == 2 or job.poll() is not None, 90)
    assert eventually(lambda: any((tmp_path / "features").glob("*.h5")) or job.poll() is not None, 90)
    killed([int(raylet)])
    said, _ = job.communicate(timeout=200)
    assert job.returncode == 0, said
    assert files(tmp_path) == alone
    cluster.communicate("\n", timeout=60)


def test_a_cluster_that_is_not_there(rendered: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"--ray 127\.0\.0\.1:1: no cluster answers"):
        sfm_match.extract(rendered, tmp_path, ray="127.0.0.1:1", **SMALL)
    assert time.monotonic() - start < 20
