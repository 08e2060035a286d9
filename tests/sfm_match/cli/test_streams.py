"""The command line with streams that are closed, full, or of another encoding, and interrupted as it starts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfm_match.signals import LINE

ROOT = Path(__file__).parents[3]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("SFM", f"{sys.executable} -m sfm_match")
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "status", "errors"),
    [
        ("SFM run -h >&-", 0, ""),
        ("SFM run --images /nonexistent 2>&-", 2, ""),
        ("SFM run --images /nonexistent >&- 2>&- <&-", 2, ""),
        ("SFM models list | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("SFM run -h | head -1; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_closed_streams_are_quiet_and_the_status_is_kept(line: str, status: int, errors: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (status, errors)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_is_lost_is_said() -> None:
    done = shell("SFM models list > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "sfm-match: stdout: No space left on device; the rest of it is lost\n"


@pytest.mark.parametrize("environment", [{"LANG": "C", "LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_without_the_characters(environment: dict[str, str]) -> None:
    done = shell("SFM run --images /nonexistent/äü—", **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("sfm-match: --images /nonexistent/") and done.stderr.endswith(": no such folder\n")


@pytest.mark.parametrize("line", ["--images ''", "--images=", "--images . --workspace ''", "--images . --config ''"])
def test_an_empty_value_is_not_the_current_folder(line: str) -> None:
    done = shell(f"SFM run {line}")
    assert done.returncode == 2
    assert "is empty; must be a value" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted_while_it_starts() -> None:
    """Modules are slow to import here: the signal comes while one is."""
    slow = "import sys, time\nsys.modules.pop('typer', None)\nclass F:\n def find_spec(self, name, *_):\n"
    slow += "  if name == 'typer': print('here', flush=True); time.sleep(20)\nsys.meta_path.insert(0, F())\n"
    code = slow + "from sfm_match.__main__ import start\nstart()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # a shell that starts the tests in the background has them, and this, ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, f"sfm-match: {LINE}\n")
    assert time.monotonic() - started < 10
