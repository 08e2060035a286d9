"""Which processes work on parts of a job (`--part`), perhaps on other machines: a file each, touched while they live.

Locks of files are not to be relied on where folders are shared over a network: NFS before version 4 has them only with
a daemon of its own. What is: a file made under a name that nobody else has, its time of change as the server gives it,
and the rename of one file over another. Times are compared with one another on the server's clock, never with this
machine's.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from sfm_match.store.shard import TEMPORARY, temporary_name

TOUCH_SECONDS = 10.0
STALE_SECONDS = 90.0  # without a touch: the process, or its machine, is gone


@contextlib.contextmanager
def present(folder: Path, what: str) -> Iterator[None]:
    """Says that this process works on `what`, for as long as the block runs.

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
        yield
    finally:
        ended.set()
        touching.join()
        file.unlink(missing_ok=True)


def _touch(file: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):  # the server is away, or somebody took this process for dead
            file.touch()


def others_present(folder: Path) -> list[str]:
    """What living processes work on. Files of dead ones are deleted.

    Raises:
        OSError: the folder cannot be written.
    """
    if not folder.is_dir():
        return []
    clock = folder / temporary_name("clock")
    clock.touch()
    try:
        now = clock.stat().st_mtime
    finally:
        clock.unlink()
    found = []
    for file in sorted(folder.glob(f"*{TEMPORARY}*")):
        try:
            silent = now - file.stat().st_mtime
        except FileNotFoundError:  # it has just ended
            continue
        if silent < STALE_SECONDS:
            found.append(file.name)
        else:
            file.unlink(missing_ok=True)
    return found
