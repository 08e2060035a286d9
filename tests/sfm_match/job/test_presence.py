"""Who works in a folder: the living, wherever they are; of the dead, those of this machine are known at once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import eventually

from sfm_match.job.presence import STALE_SECONDS, others_at_work, others_present, present

ROOT = Path(__file__).parents[3]
CODE = (
    "import sys\nfrom pathlib import Path\nfrom sfm_match.job.presence import present\n"
    "with present(Path(sys.argv[1]), 'work'):\n    print('here', flush=True)\n    input()\n"
)


@contextmanager
def another_process(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """That works in the folder."""
    command = [sys.executable, "-c", CODE, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def test_the_living_and_the_killed_of_this_machine(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        (name,) = others_present(tmp_path)
        assert name.startswith("work.tmp-")
        assert f"-{process.pid}-" in name
        process.kill()
        assert eventually(lambda: not others_present(tmp_path))  # nobody has waited for it: it is a zombie
    assert not list(tmp_path.iterdir())


def test_one_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.communicate("\n")
    assert not list(tmp_path.iterdir())


def test_which_others(tmp_path: Path) -> None:
    assert others_present(tmp_path / "nowhere") == []
    with present(tmp_path, "mine") as own, present(tmp_path, ".hidden") as hidden:
        assert others_present(tmp_path, "mine", own) == []
        assert others_present(tmp_path, "mine") == [own.name]
        assert others_present(tmp_path, ".hidden") == [hidden.name]
        assert own.read_text() == "mine"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("silent", "living"), [(0, True), (60, True), (STALE_SECONDS + 1, False), (-3600, False)])
def test_of_another_machine_only_silence_tells(tmp_path: Path, silent: float, living: bool) -> None:
    there = tmp_path / f"work.tmp-elsewhere-{2**22 + 1}-0123abcd"  # no process of this machine has that number
    there.touch()
    then = time.time() - silent
    os.utime(there, (then, then))
    assert (others_present(tmp_path) == [there.name]) == living
    assert there.exists() == living


def test_of_another_machine_it_is_waited_whether_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster starts a killed job again elsewhere, at once."""
    there = tmp_path / f"work.tmp-elsewhere-{2**22 + 1}-0123abcd"
    then = time.time()
    looks: list[float] = []
    told: list[str] = []

    def alive(_seconds: float) -> None:
        looks.append(_seconds)
        if len(looks) == 3:
            os.utime(there, (then + 10, then + 10))

    def dead(_seconds: float) -> None:
        looks.append(_seconds)
        if len(looks) == 6:
            os.utime(there, (then - STALE_SECONDS, then - STALE_SECONDS))  # as if time had passed

    there.touch()
    monkeypatch.setattr(time, "sleep", alive)
    assert others_at_work(tmp_path, waiting=told.append) == [there.name]
    assert (len(looks), told) == (3, [there.name])
    monkeypatch.setattr(time, "sleep", dead)
    assert others_at_work(tmp_path, waiting=told.append) == []
    assert (len(looks), told) == (6, [there.name] * 2)
    assert not there.exists()


def test_for_one_of_this_machine_it_is_not_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with another_process(tmp_path):
        assert len(others_at_work(tmp_path, waiting=pytest.fail)) == 1
    assert others_at_work(tmp_path) == []
