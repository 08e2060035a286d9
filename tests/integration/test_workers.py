"""Two workers leave the same bytes in every file as one."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import sfm_match
from sfm_match.colmap import verification
from sfm_match.colmap.queries import content_digest
from sfm_match.errors import NothingDone, UsageError
from sfm_match.job import executor, worker_processes
from sfm_match.job.worker_processes import ProcessPool
from sfm_match.refine.align_units import align_units
from sfm_match.stages.verify_units import verify_units

SMALL: dict[str, Any] = {"size": 384, "max_keypoints": 400}


def files(workspace: Path) -> dict[str, bytes]:
    """The content of every file of features and matches."""
    paths = [*workspace.glob("features/*"), *workspace.glob("matches/*")]
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


def test_the_same_bytes(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 2)
    monkeypatch.setattr("sfm_match.stages.match_blocks.BLOCK", 2)
    reports = {}
    for devices in (None, "cpu,cpu"):
        work = tmp_path / str(devices)
        extracted = sfm_match.extract(rendered, work, devices=devices, **SMALL)
        sfm_match.pairs(work)
        reports[devices] = extracted, sfm_match.match(work, devices=devices)
    assert len(files(tmp_path / "None")) > 6
    assert files(tmp_path / "None") == files(tmp_path / "cpu,cpu")
    for alone, both in zip(*reports.values(), strict=True):
        assert (both.done, both.facts) == (alone.done, alone.facts)
        assert both.detail.startswith("2 workers")
    extracted, matched = reports["cpu,cpu"]
    assert {"load", "decode", "network"} <= extracted.spent.keys()
    assert {"read", "match"} <= matched.spent.keys()


class TwoProcesses(ProcessPool):
    """Of this machine, in place of a cluster's."""

    devices = ("cpu", "cpu")


def imported_by_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes the database anew by worker processes. Returns what they were given to do."""
    done: list[Any] = []
    start = worker_processes.WorkerProcess.__init__

    def noting(worker: Any, work: Any, *arguments: Any) -> None:
        done.append(work.func)
        start(worker, work, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(worker_processes.WorkerProcess, "__init__", noting)
        patch.setattr("sfm_match.stages.import_.ray_pool", lambda *_: TwoProcesses())
        sfm_match.import_(folder, overwrite=True)
    return done


def test_the_same_database(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers verify and align; one that is killed on the way changes nothing, nor what an earlier run had done."""
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 2)
    monkeypatch.setattr("sfm_match.stages.match_blocks.BLOCK", 2)
    monkeypatch.setattr("sfm_match.refine.keypoints.UNIT", 2)
    sfm_match.run(rendered, tmp_path, mapper="none", report=False, pairs="exhaustive", **SMALL)
    alone, content = (tmp_path / "database.db").read_bytes(), content_digest(tmp_path / "database.db")
    assert imported_by_workers(tmp_path, monkeypatch) == [verify_units] * 2 + [align_units] * 2
    assert (tmp_path / "database.db").read_bytes() == alone

    with monkeypatch.context() as patch, pytest.raises(NothingDone, match="stopped"):
        write = verification._write

        def stopping(connection: Any, judged: Any) -> None:
            if judged.number % 7 == 0:  # somewhere on the way
                connection.commit()
                raise NothingDone("stopped")
            write(connection, judged)

        patch.setattr(verification, "_write", stopping)
        imported_by_workers(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        give, killed = executor._Coordinator._give, list[int]()

        def giving(coordinator: Any, worker: Any) -> None:
            give(coordinator, worker)
            if len(killed) < 2 and worker.holding and worker.deaths == 0 and worker.process.pid not in killed:
                killed.append(worker.process.pid)
                os.kill(worker.process.pid, signal.SIGKILL)

        patch.setattr(executor._Coordinator, "_give", giving)
        imported_by_workers(tmp_path, monkeypatch)
        assert len(killed) == 2
    assert content_digest(tmp_path / "database.db") == content  # SQLite counts how often it was written


def test_a_worker_killed_in_the_middle(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With -9, as it is given its second unit: another worker takes its place, and the bytes are the same."""
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 1)
    sfm_match.extract(rendered, tmp_path / "one", **SMALL)
    started: list[Any] = []
    killed: list[int] = []
    given: Counter[int] = Counter()
    start, give = worker_processes.WorkerProcess.__init__, executor._Coordinator._give

    def noting(worker: Any, *arguments: Any) -> None:
        start(worker, *arguments)
        started.append(worker)

    def giving(coordinator: Any, worker: Any) -> None:
        held = len(worker.holding)
        give(coordinator, worker)
        given[id(worker)] += len(worker.holding) > held
        if given[id(worker)] == 2 and not killed:  # the first to have a second unit
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()  # so that it asks for no third one

    monkeypatch.setattr(worker_processes.WorkerProcess, "__init__", noting)
    monkeypatch.setattr(executor._Coordinator, "_give", giving)
    report = sfm_match.extract(rendered, tmp_path / "two", devices="cpu,cpu", **SMALL)
    assert len(started) == 3
    assert "the worker on cpu was lost (killed by signal 9); another one takes its place" in caplog.text
    assert report.done == 6
    assert files(tmp_path / "two") == files(tmp_path / "one")  # what it was writing is gone, too


def test_devices_that_cannot_be_had_or_mixed(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--device cuda: no NVIDIA GPU"):
        sfm_match.extract(rendered, tmp_path, devices="cpu,cuda")
    monkeypatch.setattr(
        "sfm_match.features.extractor.resolve_precision", lambda _, device: "fp32" if device == "cpu" else "fp16"
    )
    with pytest.raises(UsageError, match=r"--devices cpu,torch: precisions differ \(cpu fp32, torch fp16\)"):
        sfm_match.extract(rendered, tmp_path, devices="cpu,torch")
