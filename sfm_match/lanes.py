"""Work in order, some of it ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_lanes(
    lanes: int,
    items: Iterable[T],
    work: Callable[[T], R],
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[tuple[T, R]]:
    """Each item with its result, in their order.

    Args:
        lanes: threads; with one, the work is done in this one.
        items: taken `lanes` ahead of what is yielded.
        work: of one item.
        waiting: entered while this thread waits for others, to measure it.
    """
    if lanes == 1:
        for item in items:
            yield item, work(item)
        return
    pending: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(lanes)
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) >= lanes:
                yield _first(pending, waiting)
        while pending:
            yield _first(pending, waiting)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for what is not begun


def _first(pending: deque[tuple[T, Future[R]]], waiting: Callable[[], AbstractContextManager[None]]) -> tuple[T, R]:
    item, future = pending.popleft()
    with waiting():
        return item, future.result()
