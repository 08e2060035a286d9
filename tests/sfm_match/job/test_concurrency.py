import threading
import time
from contextlib import nullcontext

import pytest

from sfm_match.job.concurrency import WorkerThreads


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_order_and_number_in_hand(workers: int) -> None:
    begun, most, lock = [0], [0], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0])
        time.sleep(0.002 * (item % 3))
        with lock:
            begun[0] -= 1
        return item * item

    assert list(WorkerThreads(workers).each(range(20), work)) == [(i, i * i) for i in range(20)]
    assert most[0] <= workers


def test_an_error_ends_it_and_what_waits_is_counted() -> None:
    waits: list[int] = []

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    def waiting() -> nullcontext[None]:
        waits.append(1)
        return nullcontext()

    found = []
    with pytest.raises(ValueError, match="three"):
        for item, _ in WorkerThreads(2).each(range(100), work, waiting):
            found.append(item)
    assert found == [0, 1, 2]
    assert len(waits) == 4


def test_threads_stay() -> None:
    workers, seen = WorkerThreads(2), set()
    for _ in range(3):
        seen |= {thread for _, thread in workers.each(range(8), lambda _: threading.get_ident())}
    assert len(seen) <= 2
    assert threading.get_ident() not in seen
