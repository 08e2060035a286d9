"""A task's process: its rows, its end, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gpu.processes import Child, Ended, start_fork, start_program
from processes import alive, eventually, gone, marked

ROOT = Path(__file__).parents[2]
HEAD = "import json, os, sys, time, signal, subprocess\ntask = json.load(sys.stdin)\n"
HEAD += "emit = lambda **row: os.write(task['rows'], json.dumps(row).encode() + b'\\n')\n"


def program(code: str, log: Path, **task: Any) -> Child:
    with log.open("ab") as file:
        return start_program([sys.executable, "-c", HEAD + code], task, file)


def rows_of(child: Child, seconds: float = 60.0) -> list[dict[str, Any]]:
    try:
        return list(child.each_row(time.monotonic() + seconds))
    finally:
        child.close()


def test_rows_come_one_by_one_and_prints_go_to_the_log(tmp_path: Path) -> None:
    child = program("emit(a=task['x']); print('noise'); emit(b=2)", tmp_path / "log", x=7)
    assert rows_of(child) == [{"a": 7}, {"b": 2}]
    assert child.ended == Ended(0)
    assert child.ended.why() is None
    assert (tmp_path / "log").read_text() == "noise\n"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise ValueError('no')", "exit status 1"),
    ],
)
def test_a_crash_keeps_the_rows_before_it(tmp_path: Path, code: str, why: str) -> None:
    child = program(f"emit(a=1); {code}", tmp_path / "log")
    assert rows_of(child) == [{"a": 1}]
    assert child.ended is not None
    assert child.ended.why() == why


def test_too_long_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    beside = "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    child = program(f"{beside}\nemit(beside=p.pid)\ntime.sleep(600)", tmp_path / "log")
    (row,) = rows_of(child, seconds=5.0)
    assert child.ended is not None
    assert child.ended.timed_out
    assert child.ended.why() == "took longer than its time"
    assert gone(child.pid)
    assert gone(row["beside"])


def test_what_a_task_leaves_behind_is_ended(tmp_path: Path) -> None:
    beside = "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=subprocess.DEVNULL)"
    child = program(f"os.set_inheritable(task['rows'], False)\n{beside}\nemit(beside=p.pid)", tmp_path / "log")
    (row,) = rows_of(child)
    assert child.ended == Ended(0)
    assert gone(row["beside"])


def test_a_copy_of_this_process(tmp_path: Path) -> None:
    def work(task: dict[str, Any]) -> None:
        os.write(task["rows"], b'{"a": %d}\n' % task["x"])
        print("noise")
        if task["x"] == 2:
            raise ValueError("no")

    for x, status in ((1, 0), (2, 1)):
        with (tmp_path / "log").open("ab") as log:
            child = start_fork(work, {"x": x}, log)
        assert rows_of(child) == [{"a": x}]
        assert child.ended == Ended(status)
    assert "ValueError: no" in (tmp_path / "log").read_text()


PARENT = """
import os, sys, time
from pathlib import Path
from gpu.processes import run_beside, start_fork, start_program
log = open(sys.argv[1], "ab")
def work(task):
    os.write(task["rows"], b"{}\\n")
    run_beside([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"], seconds=600)
if sys.argv[2] == "fork":
    child = start_fork(work, {}, log)
else:
    child = start_program([sys.executable, "-c", "import time; time.sleep(600)"], {}, log)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["fork", "program"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel ends a child with its parent")
def test_nothing_outlives_a_killed_parent(tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "GPU_CHECK_TEST": str(tmp_path)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), how]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    expected = 3 if how == "fork" else 2
    assert eventually(lambda: len(marked(str(tmp_path))) == expected)
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(child)
    assert eventually(lambda: not marked(str(tmp_path)))
