"""The proof for GPU machines runs here, too, through the same code; killed at any moment, it goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gpu import machine, plan, runner
from gpu.rows import END, key_of, read_rows
from processes import eventually, marked

ROOT = Path(__file__).parents[2]
SECONDS = 600.0  # of a whole run, at the very most


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--device", "cpu", "--quick", "--out", str(out)]
    environment = {**os.environ, "GPU_CHECK_TEST": str(out)}
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


def rows_in(out: Path) -> list[dict[str, Any]]:
    """Of the one file there."""
    found = list(out.glob("*.jsonl"))
    assert len(found) <= 1, found
    return read_rows(found[0]) if found else []


def killed(out: Path, rows: int, pause: float, *arguments: str) -> list[dict[str, Any]]:
    """Rows after a kill -9 some time after so many rows stand."""
    process = start(out, *arguments)
    assert eventually(lambda: len(rows_in(out)) >= rows or process.poll() is not None, SECONDS)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not marked(str(out))), "a process was left behind"
    return rows_in(out)


def test_every_part_runs_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(2):
        before = rows
        rows = killed(tmp_path, len(before) + moments.randrange(3, 12), moments.uniform(0, 1))
        assert rows[: len(before)] == before
    output = finish(start(tmp_path))
    assert output.rstrip().endswith("done")
    assert finish(start(tmp_path)).count("\n") == 1  # nothing is left to do
    after = rows_in(tmp_path)
    assert after[: len(rows)] == rows
    assert max(Counter(map(key_of, after)).values()) == 1
    failed = [row for row in after if row.get("status") == "failed"]
    assert not failed
    ended = {row["part"] for row in after if row["case"] == END}
    assert ended == {part.name for part in plan.PARTS}
    for row in after:
        if row.get("status") == "left out":
            assert row["why"]
        if row["case"] == END:
            assert {"seconds", "before", "after"} <= row.keys()
    assert {row["engine"] for row in after if row["part"] == "matching-parity"} == {"torch", "cpu"}


def test_fresh_programs_as_on_a_gpu(tmp_path: Path) -> None:
    """Where tasks are no copies: parts that were asked for, a file that is named, and the time that is over."""
    path = tmp_path / "mine.jsonl"
    arguments = ("--programs", "--parts", "ceiling", "--out", str(path))
    process = start(tmp_path, *arguments, "--minutes", "0.0001")
    process.communicate(timeout=SECONDS)
    assert process.returncode == 3
    assert not [row for row in read_rows(path) if row["part"] == "ceiling"]
    finish(start(tmp_path, *arguments))
    rows = read_rows(path)
    assert {row["part"] for row in rows} == {"settings", "call", "engines", "ceiling"}
    assert [row["case"] for row in rows if row["part"] == "call"] == ["0", "1"]
    (ceiling,) = (row for row in rows if row["part"] == "ceiling" and row["case"] == "machine")
    assert ceiling["product_tflops"] > 0
    # other settings are another file
    process = start(tmp_path, *arguments, "--models", "dedode-nano", "--device", "cuda")
    assert "other settings" in process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2


def test_what_does_not_fit_is_left_alone(tmp_path: Path) -> None:
    """A folder's latest file of these settings, GPU and commit is gone on with; others stay as they are."""
    settings = Sink(set()).work.settings
    call = {"part": "call", "case": "0", "machine": {}, "versions": {"commit": machine.commit()}}
    rows = [{"part": "settings", "case": "settings", "settings": settings.as_json()}, call]

    def made(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / f"{name}_gpu_check_cpu_quick.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    made("2026-01-01", rows)
    good = made("2026-01-02", rows)
    made("2026-01-03", [rows[0], {**call, "machine": {"gpu": "another"}}])
    made("2026-01-04", [rows[0], {**call, "versions": {"commit": "another"}}])
    made("2026-01-05", [{**rows[0], "settings": {**settings.as_json(), "sizes": [64]}}, call])
    (tmp_path / "2026-01-06_gpu_check_cpu_quick.jsonl").write_text("broken\nbroken\n")
    assert runner.place(tmp_path, settings, fresh=False) == good
    assert runner.place(tmp_path, settings, fresh=True) not in set(tmp_path.iterdir())
    assert runner.place(tmp_path / "x.jsonl", settings, fresh=True) == tmp_path / "x.jsonl"


def test_names_that_are_not_known(tmp_path: Path) -> None:
    process = start(tmp_path, "--parts", "matching")
    assert "accepted are engines" in process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2


class Sink:
    """What a part emits."""

    def __init__(self, done: set[str]) -> None:
        self.rows: list[dict[str, Any]] = []
        settings = plan.Settings("cpu", True, ("dedode-nano",), (128,), (1,), (256,), 256, 0.1)
        self.work = plan.Work(settings, "torch", "", done, self.rows.append)


def _raise(error: BaseException) -> dict[str, Any]:
    raise error


def test_a_case_that_fails_is_a_row() -> None:
    sink = Sink({"stood"})
    sink.work.case("stood", lambda: _raise(AssertionError("not run again")))
    sink.work.case("good", lambda: {"rate": 1})
    sink.work.case("wrong", lambda: _raise(plan.Failed("not equal", equal=0.5)))
    sink.work.case("absent", lambda: _raise(ModuleNotFoundError("No module named 'h5py'", name="h5py")))
    sink.work.case("none", lambda: _raise(plan.LeftOut("no GPU")))
    sink.work.case("broken", lambda: _raise(RuntimeError("CUDA error:\n an illegal address")))
    assert sink.rows == [
        {"case": "good", "status": "ok", "rate": 1},
        {"case": "wrong", "status": "failed", "why": "not equal", "equal": 0.5},
        {"case": "absent", "status": "left out", "why": "h5py is not installed"},
        {"case": "none", "status": "left out", "why": "no GPU"},
        {"case": "broken", "status": "failed", "why": "RuntimeError: CUDA error: an illegal address"},
    ]
    with pytest.raises(KeyboardInterrupt):
        sink.work.case("stopped", lambda: _raise(KeyboardInterrupt()))


def test_settings_come_back_from_a_file() -> None:
    settings = Sink(set()).work.settings
    assert plan.Settings.from_json(settings.as_json()) == settings
