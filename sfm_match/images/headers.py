"""The headers of a folder's images: a hundred thousand files are opened, and a little of each is read."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from sfm_match.images.files import Header, ImageError, read_header
from sfm_match.job.cores import cores

_AT_ONCE, _ALONE = 1 << 10, 1 << 3  # that are read together; those of them that tell how
_MOST_THREADS = 16


def read_headers(folder: Path, names: list[str]) -> Iterator[Header | ImageError]:
    """The headers of many files, in their order. Those that are equal are one object.

    Where reading waits for a disk or a network, it is done in threads. Where it does not, as of files that the system
    has in memory, threads hinder each other, as only one at a time can run Python: one reads twice as many as eight.
    """

    def read(name: str) -> Header | ImageError:
        try:
            return read_header(folder / name)
        except ImageError as error:
            return error

    known: dict[Header, Header] = {}
    with ThreadPoolExecutor(min(_MOST_THREADS, 4 * cores())) as pool:
        for start in range(0, len(names), _AT_ONCE):  # what waits for a thread takes a kilobyte
            some = names[start : start + _AT_ONCE]
            first = [read(name) for name in some[:1]]  # the first one of a process loads what reads images
            began, worked = time.monotonic(), time.thread_time()
            first += map(read, some[1:_ALONE])
            worked, took = time.thread_time() - worked, time.monotonic() - began
            each = map if took < 2 * worked else pool.map  # threads cost twice the work
            for found in chain(first, each(read, some[_ALONE:])):
                yield known.setdefault(found, found) if isinstance(found, Header) else found
