"""Which processes work in a folder, perhaps on other machines: a file each, touched while they live.

Locks of files are not to be relied on where folders are shared over a network: NFS before version 4 has them only with
a daemon of its own, and some mounts keep them to one machine. What is: a file made under a name that nobody else has,
its time of change as the server gives it, and the rename of one file over another. Times are compared with one another
on the server's clock, never with this machine's.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from sfm_match.signals import removed_if_stopped
from sfm_match.store.shard import TEMPORARY, temporary_name, writer_is_gone

TOUCH_SECONDS = 10.0
STALE_SECONDS = 90.0  # without a touch: the process, or its machine, is gone


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


def others_present(folder: Path, what: str = "*", own: Path | None = None) -> list[str]:
    """What living processes work on. Files of dead ones are deleted: at once, where they ran on this machine.

    Args:
        folder: where they say so.
        what: they work on, `*` for anything.
        own: file of this process.

    Raises:
        OSError: the folder cannot be written.
    """
    files = sorted(file for file in folder.glob(f"{what}{TEMPORARY}*") if file != own)
    if not files:
        return []
    clock = folder / temporary_name(".clock")
    clock.touch()
    try:
        now = clock.stat().st_mtime
    finally:
        clock.unlink()
    found = []
    for file in files:
        try:
            silent = now - file.stat().st_mtime
        except FileNotFoundError:  # it has just ended
            continue
        if abs(silent) < STALE_SECONDS and not writer_is_gone(file.name):  # a time to come is nobody's touch
            found.append(file.name)
        else:
            file.unlink(missing_ok=True)
    return found
