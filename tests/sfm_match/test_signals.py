"""Signals at the command line; `scripts/signals.py` looks at every stage."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfm_match import signals

ROOT = Path(__file__).parents[2]
CLOSES = """
import os, sys, time
from sfm_match.signals import handled, removed_if_stopped
from pathlib import Path
with handled(), removed_if_stopped(Path(sys.argv[1])):
    import pycolmap  # its glog has a handler of SIGTERM of its own
    Path(sys.argv[1]).mkdir()
    try:
        os.write(2, b"<here>\\n")
        time.sleep(60)
    finally:
        Path(sys.argv[1]).rmdir()
"""
# A native call that lets other threads run and never sees the signal.
CANNOT_BE_LEFT = CLOSES.replace("time.sleep(60)", "import ctypes; [ctypes.CDLL(None).usleep(9_000_000) for _ in 'ab']")


def begun(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """The program, where it has said that it is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"<here>\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_open_is_closed_and_one_line_says_how_to_resume(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(CLOSES, tmp_path / "half")
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert said.decode() == f"sfm-match: {signals.LINE}\n"
    assert process.returncode == 128 + number
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_call_that_cannot_be_left_ends_with_the_process(times: int, tmp_path: Path) -> None:
    process, began = begun(CANNOT_BE_LEFT, tmp_path / "half"), time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < (3.0 if times == 1 else 1.5)
    assert said.decode() == f"sfm-match: {signals.LINE}\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "half").exists()


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """`nohup` ignores SIGHUP for what it starts."""
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + CLOSES.replace("sleep(60)", "sleep(1)")
    process = begun(ignoring, tmp_path / "half")
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == (None, b"")
    assert process.returncode == 0


def test_handlers_are_as_before_afterwards() -> None:
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in every]
    with signals.handled():
        assert [signal.getsignal(number) for number in every] != before
    assert [signal.getsignal(number) for number in every] == before
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_temporary_folder_goes_and_is_known_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal ends the process at once, and removes what is known then."""
    known: list[int] = []
    remove = shutil.rmtree

    def noted(path: Path, *, ignore_errors: bool) -> None:
        known.append(len(signals._unfinished))
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", noted)
    with signals.temporary_folder("sfm-match-test-") as folder:
        (folder / "file").touch()
    assert not folder.exists()
    with pytest.raises(KeyError), signals.temporary_folder("sfm-match-test-") as other:
        raise KeyError
    assert not other.exists()
    assert known == [1, 1]
