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

import gpu
import pytest
import torch
from gpu import machine, plan, runner, worker
from gpu.rows import END, Results, key_of, read_rows
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


EVERY = ",".join(dict.fromkeys(part.name for part in plan.PARTS))


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "latest"), [("ceiling", 8), (EVERY, 60)], ids=["one part", "every part"])
def test_every_part_runs_and_a_kill_loses_nothing(parts: str, latest: int, tmp_path: Path) -> None:
    """The kill comes at any moment, at the latest after so many rows."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    arguments = () if parts == EVERY else ("--parts", parts)
    rows = killed(tmp_path, moments.randrange(3, latest), moments.uniform(0, 1), *arguments)
    output = finish(start(tmp_path, *arguments))
    assert output.rstrip().endswith("done")
    assert finish(start(tmp_path, *arguments)).count("\n") == 1  # nothing is left to do
    after = rows_in(tmp_path)
    assert after[: len(rows)] == rows
    assert max(Counter(map(key_of, after)).values()) == 1
    failed = [row for row in after if row.get("status") == "failed"]
    assert not failed
    ended = {row["part"] for row in after if row["case"] == END}
    assert ended == {"engines", *parts.split(",")}
    for row in after:
        if row.get("status") == "left out":
            assert row["why"]
        if row["case"] == END:
            assert {"seconds", "before", "after"} <= row.keys()
    if "bitwise" in ended:
        assert {row["engine"] for row in after if row["part"] == "bitwise"} == {"torch", "cpu"}


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
        self.work = plan.Work(settings, "torch", "", done, self._emit)

    def _emit(self, row: dict[str, Any]) -> None:
        if plan.BEGUN not in row:
            self.rows.append(row)


def _raise(error: BaseException) -> dict[str, Any]:
    raise error


def test_a_case_that_fails_is_a_row() -> None:
    sink = Sink({"stood"})
    sink.work.case("stood", lambda: _raise(AssertionError("not run again")))
    sink.work.case("good", lambda: {"rate": 1})
    sink.work.case("wrong", lambda: _raise(plan.Failed("not equal", equal=0.5)))
    sink.work.case("absent", lambda: _raise(ModuleNotFoundError("No module named 'h5py'", name="h5py")))
    sink.work.case("none", lambda: _raise(plan.LeftOut("no GPU")))
    sink.work.case("broken", lambda: _raise(RuntimeError("cuDNN error:\n not supported")))
    assert sink.rows == [
        {"case": "good", "status": "ok", "rate": 1},
        {"case": "wrong", "status": "failed", "why": "not equal", "equal": 0.5},
        {"case": "absent", "status": "left out", "why": "h5py is not installed"},
        {"case": "none", "status": "left out", "why": "no GPU"},
        {"case": "broken", "status": "failed", "why": "RuntimeError: cuDNN error: not supported"},
    ]
    with pytest.raises(KeyboardInterrupt):
        sink.work.case("stopped", lambda: _raise(KeyboardInterrupt()))


PARTS = """
import faulthandler, os, signal, time
from gpu import plan

def dies(work):
    work.case("before", lambda: {"x": 1})
    faulthandler.disable()  # pytest's
    work.case("dies", lambda: os.kill(os.getpid(), signal.SIGSEGV))
    work.case("lost", lambda: lose())
    work.case("after", lambda: {"x": 2})

def lose():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def prepares(work):
    raise OSError("no such library")

def stuck(work):
    work.case("quick", lambda: {"x": 3})
    work.case("stuck", lambda: time.sleep(600))
    work.case("never", lambda: {"x": 4})

def gone(work):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_case_that_ends_its_process_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.get_num_threads()  # imported: copies of this process need not
    (tmp_path / "made.py").write_text(PARTS)
    monkeypatch.setattr("gpu.__path__", [*gpu.__path__, str(tmp_path)])
    names = {"dies": 1.0, "prepares": 1.0, "stuck": 0.1, "gone": 1.0}
    made = [plan.Part(name, "made", minutes=minutes) for name, minutes in names.items()]
    monkeypatch.setattr(plan, "PARTS", (plan.PARTS[0], *made))
    results = Results(tmp_path / "r.jsonl")
    with (tmp_path / "log").open("ab") as log:
        end = time.monotonic() + SECONDS
        run = runner.Runner(results, Sink(set()).work.settings, [], log, end, fork=worker.run)
        assert run.run()
    rows = {(row["part"], row["case"]): row for row in results.rows if row["part"] in names}
    results.close()
    assert len(rows) == 5 + 2 + 3 + 1
    status = {key: row["status"] for key, row in rows.items()}
    assert status["dies", "before"] == status["dies", "after"] == "ok"
    assert rows["dies", "dies"]["why"] == "killed by SIGSEGV"
    assert "illegal memory access" in rows["dies", "lost"]["why"]
    assert rows["dies", END]["why"] == "killed by SIGSEGV; the GPU was lost to its process"
    assert rows["prepares", "preparation"]["why"] == "OSError: no such library"
    assert status["prepares", END] == "ok"
    assert rows["stuck", "stuck"]["why"] == rows["stuck", END]["why"] == "took longer than its time"
    assert ("stuck", "never") not in rows
    assert rows["gone", END]["why"] == "killed by SIGKILL"


def test_settings_come_back_from_a_file() -> None:
    settings = Sink(set()).work.settings
    assert plan.Settings.from_json(settings.as_json()) == settings
