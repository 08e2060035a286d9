"""Faults of the machine: full disks, little memory, closed streams, files that go away or change during a run."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from campaign import isolated, job
from campaign.isolated import Conditions, Finished
from hostile import small_job
from hostile.case import Case

MB = 2**20


def _conditions(**settings: object) -> Conditions:
    return dataclasses.replace(job.SMALL_UNITS, **settings)  # type: ignore[arg-type]


def _fresh(folder: Path) -> list[str]:
    return small_job.run(folder, small_job.photos(folder, 4))


def _resumes(folder: Path, _: Finished) -> str:
    """The same command goes on and ends with a model of all photographs."""
    photos = small_job.photos(folder, 4)
    again = isolated.run(small_job.run(folder, photos), conditions=job.SMALL_UNITS, seconds=60)
    if again.fault() or again.status:
        return f"not resumed: {again.fault() or again.status} {again.err[-1][-200:]}"
    fresh = folder / "fresh"
    fresh.mkdir()
    arguments = [*small_job.run(fresh, photos)]
    if isolated.run(arguments, conditions=job.SMALL_UNITS, seconds=60).status:
        return "the undisturbed run failed"
    found, expected = small_job.results(folder / "work"), small_job.results(fresh / "work")
    different = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    left = [path.name for path in (folder / "work").rglob("*.tmp-*")]
    return f"resumed, different: {', '.join(different)}" if different else f"left: {left}" if left else ""


def _filled(limit: int) -> Case:
    return Case(
        f"files of at most {limit:,} bytes",
        "full disk",
        _fresh,
        frozenset({0, 3}),
        _conditions(limits={"fsize": limit}),
        check=_resumes,
        seconds=30,
    )


def _memory(limit: int) -> Case:
    """Not below what the loaded libraries map."""
    return Case(
        f"{limit:,} MB of addresses",
        "memory",
        _fresh,
        frozenset({0, 1, 3}),
        _conditions(limits={"as": limit * MB}),
        check=_resumes,
        seconds=30,
    )


def _while_running(wait: float, change: Callable[[Path], object], folder: Path) -> None:
    limit = time.monotonic() + 10
    while not (folder / "work").exists() and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(wait)
    with contextlib.suppress(OSError):
        change(folder)


def _delete_image(folder: Path) -> None:
    sorted((folder / "photos").iterdir())[1].unlink()


def _change_image(folder: Path) -> None:
    first, second = sorted((folder / "photos").iterdir())[:2]
    shutil.copyfile(first, second)


def _truncate_image(folder: Path) -> None:
    os.truncate(sorted((folder / "photos").iterdir())[1], 500)


def _delete_workspace(folder: Path) -> None:
    shutil.rmtree(folder / "work")


def _delete_features(folder: Path) -> None:
    shutil.rmtree(folder / "work" / "features")


def _delete_photos(folder: Path) -> None:
    shutil.rmtree(folder / "photos")


def _rename_workspace(folder: Path) -> None:
    (folder / "work").rename(folder / "moved")


def _second_run(folder: Path) -> None:
    ended = isolated.run(small_job.run(folder, folder / "photos"), conditions=job.SMALL_UNITS, seconds=20)
    (folder / "second").write_text(ended.fault())


def _second_ok(folder: Path, _: Finished) -> str:
    second = (folder / "second").read_text() if (folder / "second").exists() else ""
    return f"the second: {second}" if second else ""


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image is deleted": _delete_image,
    "an image is changed": _change_image,
    "an image is truncated": _truncate_image,
    "the workspace is deleted": _delete_workspace,
    "the features are deleted": _delete_features,
    "the photographs are deleted": _delete_photos,
    "the workspace is renamed": _rename_workspace,
}


def _future(folder: Path) -> list[str]:
    arguments = _fresh(folder)
    for photo in (folder / "photos").iterdir():
        os.utime(photo, (4e9, 4e9))
    return arguments


def _past(folder: Path) -> list[str]:
    arguments = _fresh(folder)
    for photo in (folder / "photos").iterdir():
        os.utime(photo, (-1e9, -1e9))
    return arguments


def _stale_lock(content: bytes, folder: Path) -> list[str]:
    arguments = _fresh(folder)
    (folder / "work").mkdir()
    (folder / "work" / ".lock").write_bytes(content)
    (folder / "work" / "features").mkdir()
    (folder / "work" / "features" / "00000.h5.tmp-otherhost-1-abcdef12").write_bytes(b"half")
    return arguments


def _clean(folder: Path, ended: Finished) -> str:
    left = [path.name for path in (folder / "work").rglob("*.tmp-*")]
    return f"left: {left}" if left else ("" if ended.status == 0 else "not done")


def _done(folder: Path, _: Finished) -> str:
    return "" if (folder / "work" / "sparse" / "0" / "points3D.bin").exists() else "not done"


def _held(folder: Path) -> None:
    """Another process holds the lock."""
    (folder / "work").mkdir(exist_ok=True)
    lines = ["import fcntl, sys, time", "file = open(sys.argv[1], 'w')", "fcntl.flock(file, fcntl.LOCK_EX)"]
    lines += ["print(1, flush=True)", "time.sleep(8)"]
    lock = str(folder / "work" / ".lock")
    holder = subprocess.Popen([sys.executable, "-c", "\n".join(lines), lock], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()


def _busy(folder: Path) -> list[str]:
    arguments = _fresh(folder)
    _held(folder)
    return arguments


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "C": {"LC_ALL": "C", "LANG": "C"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "no home": {"HOME": "/nonexistent"},
    "home a file": {"HOME": "/etc/passwd"},
    "no temporary folder": {"TMPDIR": "/nonexistent"},
    "columns 0": {"COLUMNS": "0"},
    "columns text": {"COLUMNS": "x"},
    "threads": {"OMP_NUM_THREADS": "x"},
    "weights": {"SFM_MATCH_WEIGHTS": "/dev/null"},
    "cache": {"XDG_CACHE_HOME": "/proc"},
}
CASES = [
    *(
        _filled(limit)
        for limit in (
            700,
            1000,
            2000,
            4000,
            8000,
            9000,
            12_000,
            20_000,
            40_000,
            60_000,
            90_000,
            100_000,
            110_000,
            130_000,
            150_000,
            180_000,
            300_000,
            500_000,
        )
    ),
    *(_memory(limit) for limit in (2000, 2200, 2400, 2700, 3000, 3500, 4000)),
    *(
        Case(
            f"{title} after {wait} s",
            "during a run",
            _fresh,
            frozenset({0, 1, 2, 3}),
            during=partial(_while_running, wait, change),
        )
        for title, change in CHANGES.items()
        for wait in (0.02, 0.15, 0.3, 0.5, 0.8)
    ),
    *(
        Case(
            f"second run after {wait} s",
            "two processes",
            _fresh,
            frozenset({0, 3}),
            during=partial(_while_running, wait, _second_run),
            check=_second_ok,
            seconds=40,
        )
        for wait in (0.0, 0.1, 0.4, 0.8)
    ),
    Case("the lock is held", "two processes", _busy, frozenset({3})),
    *(
        Case(
            f"lock of another host, {title}",
            "two processes",
            partial(_stale_lock, content),
            frozenset({0}),
            check=_clean,
        )
        for title, content in {"empty": b"", "with text": b"otherhost 4242\n", "binary": bytes(99)}.items()
    ),
    Case("images of the year 2096", "clock", _future, frozenset({0}), check=_done),
    Case("images of the year 1938", "clock", _past, frozenset({0}), check=_done),
    *(
        Case(f"closed: {closed}", "streams", _fresh, conditions=_conditions(closed=closed), check=_done)
        for closed in ((1,), (2,), (1, 2))
    ),
    *(
        Case(f"environment: {title}", "streams", _fresh, frozenset({0}), _conditions(environment=more), check=_done)
        for title, more in ENVIRONMENTS.items()
    ),
    *(
        Case(
            f"{count} open files",
            "streams",
            _fresh,
            frozenset({0, 3}),
            _conditions(limits={"nofile": count}),
            check=_resumes,
        )
        for count in (16, 24, 32, 64)
    ),
]
