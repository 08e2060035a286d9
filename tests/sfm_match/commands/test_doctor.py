import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fake_gpu import GPU
from jobs import sfm_match as command

import sfm_match
from sfm_match import doctor
from sfm_match.errors import NothingDone
from sfm_match.job.workspace import Workspace
from sfm_match.runtime.gpus import gpus


def states(health) -> dict[str, str]:
    return {finding.what: finding.state for finding in health.findings}


@pytest.mark.skipif(bool(gpus()), reason="a GPU is here")
def test_this_machine() -> None:
    found = states(doctor())
    assert found["NVIDIA driver"] == "none found"
    assert found["--device cpu"] == "available"
    assert found["--device cuda"] == "no NVIDIA GPU with a driver"
    assert found["--device auto"] == "takes cpu (no NVIDIA GPU with a driver)"
    assert found["dedode-nano"] == "built in"
    assert found["pycolmap"].startswith("4.")


@pytest.mark.usefixtures("fake_gpu")
def test_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.commands.doctor.gpus", lambda: (GPU,))
    monkeypatch.setattr("sfm_match.commands.doctor.cuda_of_driver", lambda: "13.0")
    found = states(doctor())
    assert found["GPU"] == "Fake GPU, compute capability 9.0, 80 GiB"
    assert found["--device tensorrt"] == "available"
    assert "pip install 'sfm-match[cuda]'" in found["--device cuda"]
    assert found["--device auto"] == "takes tensorrt (the fastest that is here)"
    monkeypatch.setattr("sfm_match.commands.doctor.gpus", lambda: (GPU, GPU))
    assert {"GPU 0", "GPU 1"} <= states(doctor()).keys()


def test_both_onnxruntimes_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.commands.doctor.version_of", lambda _: "1.31.1")
    health = doctor()
    assert health.trouble
    assert "! onnxruntime twice" in "\n".join(health.lines())


def test_a_workspace(rendered: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    sfm_match.extract(rendered, work, size=256, max_keypoints=100)
    assert states(doctor(work))["next"] == f"sfm-match pairs --workspace {work}"
    (shard,) = (work / "features").glob("*.h5")
    shard.write_bytes(shard.read_bytes()[:2000])
    health = doctor(work)
    assert health.trouble
    told = states(health)["damaged"]
    assert told.startswith(f"{shard}: it has 2,000 bytes, and was written with ")
    assert told.endswith("; --repair moves it aside, the next run makes it again")
    assert command("doctor", "--workspace", work).returncode == 1
    done = command("doctor", "--workspace", work, "--repair", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trouble"] is False
    assert not shard.exists()
    assert shard.with_name("00000.h5.damaged").stat().st_size == 2000
    with pytest.raises(NothingDone, match="no such folder"):
        doctor(tmp_path / "absent")
    assert sfm_match.extract(rendered, work, size=256, max_keypoints=100).done == 6


@pytest.fixture(scope="module")
def finished(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with models."""
    work = tmp_path_factory.mktemp("doctor") / "work"
    sfm_match.run(rendered, work, report=False, size=256, max_keypoints=300)
    return work


def snapshot(work: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in work.rglob("*") if path.is_file()}


def test_a_whole_workspace(finished: Path) -> None:
    before = snapshot(finished)
    with Workspace(finished):  # a job is running
        health = doctor(finished)
    assert not health.trouble, health.lines()
    found = states(health)
    assert found["images.json"] == "6 images"
    assert found["features"] == "1 files, 0 damaged"
    assert found["pairs.txt"] == "15 pairs"
    assert found["database.db"].startswith("6 images, ")
    assert found["sparse"].endswith(" files")
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    "name",
    [
        "sfm-match.json",
        "images.json",
        "pairs.txt",
        "failed.csv",
        "stages.json",
        "database.db",
        "sparse/0/points3D.bin",
        "sparse/sfm-match.json",
    ],
)
def test_each_damaged_file_is_named_and_made_again(finished: Path, rendered: Path, tmp_path: Path, name: str) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    (work / name).write_bytes(b"\xff\0garbage" * 1000)
    with_damage = snapshot(work)
    health = doctor(work)
    assert health.trouble
    assert snapshot(work) == with_damage
    told = [finding.state for finding in health.findings if finding.trouble]
    assert any(str(work / name) in state for state in told), told
    assert all("\n" not in state for state in told)
    mended = doctor(work, repair=True)
    assert not mended.trouble, mended.lines()
    kept = [content for path, content in snapshot(work).items() if ".damaged" in path]
    assert with_damage[str(work / name)] in kept
    assert sfm_match.run(rendered, work, report=False, size=256, max_keypoints=300)[-1].facts["registered"] == 6
    assert not doctor(work).trouble


def test_a_database_in_use_stays_where_it_is(finished: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    with closing(sqlite3.connect(work / "database.db")) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        told = doctor(work, repair=True)
    assert told.trouble
    assert "another program is writing to it" in "\n".join(told.lines())
    assert (work / "database.db").exists()
    assert not list(work.glob("*.damaged"))


@pytest.mark.parametrize("name", ["failed.csv", "unregistered.csv"])
def test_a_table_that_was_changed_is_trouble(finished: Path, tmp_path: Path, name: str) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    (work / name).write_text((work / name).read_text().replace("reason", "seasom"))
    told = [finding.state for finding in doctor(work).findings if finding.trouble]
    assert len(told) == 1
    assert told[0].startswith(f"{work / name}: changed since it was written")


def test_a_list_that_was_edited_is_said_and_stays_valid(finished: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    lines = (work / "pairs.txt").read_text().splitlines(keepends=True)
    (work / "pairs.txt").write_text("".join(lines[:-1]))
    health = doctor(work)
    assert not health.trouble
    assert states(health)["pairs.txt"] == "14 pairs; changed since it was written, and taken as it is"
    done = command("match", "--workspace", work)
    assert done.returncode == 0
    assert f"{work / 'pairs.txt'}: changed since it was written; it is taken as it is" in done.stderr
