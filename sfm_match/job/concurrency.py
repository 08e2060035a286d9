"""Work in order, some of it ahead."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # results that wait for the disk at most; a unit of 64 images with 4096 keypoints is 138 MB


def machine_memory() -> int | None:
    """Bytes; None where nobody tells (Windows)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None


def give_memory_back() -> None:
    """What was freed goes back to the system: glibc keeps blocks of up to 32 MB, and their fragments add up."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


class WorkerThreads:
    """Threads that stay, and with them what an engine keeps for each: streams, buffers, captured graphs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def each(
        self,
        items: Iterable[T],
        work: Callable[[T], R],
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Iterator[tuple[T, R]]:
        """Each item with its result, in their order. With one worker, the work is done in the caller's thread.

        Args:
            items: taken one more than there are workers ahead of what is yielded, so that none of them waits.
            work: of one item.
            waiting: entered while the caller waits for a worker, to measure it.
        """
        if self._pool is None:
            for item in items:
                yield item, work(item)
            return
        pending: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                pending.append((item, self._pool.submit(work, item)))
                if len(pending) > self.count:
                    yield _first(pending, waiting)
            while pending:
                yield _first(pending, waiting)
        finally:  # an error or an interrupt does not wait for what is not begun
            wait([future for _, future in pending if not future.cancel()])


def in_background(
    results: Iterable[T],
    write: Callable[[T], R],
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[R]:
    """What `write` returns for each result, in their order. One thread writes, at most `AHEAD` results wait for it.

    An error or an interrupt on the way loses nothing: results that were computed are written before it is passed on.

    Args:
        results: taken while earlier ones are written.
        write: of one result.
        waiting: entered while the caller waits for the writer, to measure it.
    """
    pending: deque[tuple[None, Future[R]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for result in results:
                pending.append((None, pool.submit(write, result)))
                del result  # or it would stay in memory while the next one is computed
                while pending and (len(pending) > AHEAD or pending[0][1].done()):
                    yield _first(pending, waiting)[1]
            while pending:
                yield _first(pending, waiting)[1]
        finally:
            wait([future for _, future in pending])


def _first(pending: deque[tuple[T, Future[R]]], waiting: Callable[[], AbstractContextManager[None]]) -> tuple[T, R]:
    item, future = pending.popleft()
    with waiting():
        return item, future.result()
