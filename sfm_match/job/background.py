"""Results written by a thread of its own while the next ones are computed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # results that wait for the disk at most; a unit of 64 images with 4096 keypoints is 138 MB


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
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for result in results:
                pending.append(pool.submit(write, result))
                del result  # or it would stay in memory while the next one is computed
                while pending and (len(pending) > AHEAD or pending[0].done()):
                    yield _first(pending, waiting)
            while pending:
                yield _first(pending, waiting)
        finally:
            wait(pending)


def _first(pending: deque[Future[R]], waiting: Callable[[], AbstractContextManager[None]]) -> R:
    with waiting():
        return pending.popleft().result()
