"""Which processes work in a folder, perhaps on other machines: a file each, touched while they live.

Locks of files are not to be relied on where folders are shared over a network: NFS before version 4 has them only with
a daemon of its own, and some mounts keep them to one machine. What is: a file made under a name that nobody else has,
its time of change as the server gives it, and the rename of one file over another. Times are compared with one another
on the server's clock, never with this machine's.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sfm_match.signals import removed_if_stopped
from sfm_match.store.shard import TEMPORARY, temporary_name, writer_is_gone

TOUCH_SECONDS = 10.0
STALE_SECONDS = 90.0  # without a touch: the process, or its machine, is gone
_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def present(folder: Path, what: str) -> Iterator[Path]:
    """Says that this process works on `what`, for as long as the block runs; gives the file that says so.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    file = folder / temporary_name(what)
    file.write_text(what, encoding="utf-8")
    ended = threading.Event()
    touching = threading.Thread(target=_touch, args=(file, ended), daemon=True)
    touching.start()
    try:
        with removed_if_stopped(file):
            yield file
    finally:
        ended.set()
        touching.join()
        file.unlink(missing_ok=True)


def _touch(file: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):  # the server is away, or somebody took this process for dead
            file.touch()


def others_at_work(
    folder: Path, what: str = "*", own: Path | None = None, waiting: Callable[[str], None] = lambda _: None
) -> list[str]:
    """What other processes work on, for certain.

    Of one on another machine nobody knows whether it was killed a moment ago, as when a cluster starts a job again
    elsewhere: it is waited for, until it says once more that it is there, or has been silent for too long.

    Args:
        folder, what, own: as in `others_present`.
        waiting: told, once, for which file it is waited.

    Raises:
        OSError: the folder cannot be written.
    """
    first: dict[str, float] | None = None
    while found := _present(folder, what, own):
        if first is None:
            first = found
            unknown = [name for name in found if writer_is_gone(name) is None]
            if len(unknown) == len(found):
                waiting(unknown[0])
        if any(touched != first.get(name) or writer_is_gone(name) is False for name, touched in found.items()):
            return list(found)
        time.sleep(_LOOK_SECONDS)
    return []


def others_present(folder: Path, what: str = "*", own: Path | None = None) -> list[str]:
    """What processes work on that have said so of late. Files of dead ones are deleted: at once, where they ran here.

    Args:
        folder: where they say so.
        what: they work on, `*` for anything.
        own: file of this process.

    Raises:
        OSError: the folder cannot be written.
    """
    return list(_present(folder, what, own))


def _present(folder: Path, what: str, own: Path | None) -> dict[str, float]:
    """As `others_present`, with the time of each one's last touch."""
    files = sorted(file for file in folder.glob(f"{what}{TEMPORARY}*") if file != own)
    if not files:
        return {}
    clock = folder / temporary_name(".clock")
    clock.touch()
    try:
        now = clock.stat().st_mtime
    finally:
        clock.unlink()
    found = {}
    for file in files:
        try:
            touched = file.stat().st_mtime
        except FileNotFoundError:  # it has just ended
            continue
        if abs(now - touched) < STALE_SECONDS and not writer_is_gone(file.name):  # a time to come is nobody's touch
            found[file.name] = touched
        else:
            file.unlink(missing_ok=True)
    return found
