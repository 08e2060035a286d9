"""Results are written beside the work, in their order, and none is lost."""

import threading
from collections.abc import Iterator

import pytest

from sfm_match.job.concurrency import AHEAD, in_background


def test_in_order_by_one_thread() -> None:
    writers = set()

    def write(result: int) -> int:
        writers.add(threading.get_ident())
        return 2 * result

    assert list(in_background(range(20), write)) == [2 * n for n in range(20)]
    assert len(writers) == 1
    assert threading.get_ident() not in writers


def test_a_slow_disk_holds_the_work_back() -> None:
    """While nothing can be written, a bounded number of results is made."""
    made, disk = [], threading.Event()

    def results() -> Iterator[int]:
        for n in range(10):
            made.append(n)
            if n == AHEAD:
                threading.Timer(0.2, disk.set).start()
            assert n <= AHEAD or disk.is_set()
            yield n

    assert list(in_background(results(), lambda _: disk.wait(10))) == [True] * 10
    assert made == list(range(10))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_computed_is_written(error: type[BaseException]) -> None:
    written: list[int] = []

    def results() -> Iterator[int]:
        yield from range(3)
        raise error

    def write(result: int) -> None:
        threading.Event().wait(0.02)
        written.append(result)

    with pytest.raises(error):
        list(in_background(results(), write))
    assert written == [0, 1, 2]


def test_a_disk_that_is_full_ends_the_job() -> None:
    def write(result: int) -> int:
        if result == 1:
            raise OSError("No space left on device")
        return result

    found = []
    with pytest.raises(OSError, match="No space left"):
        for result in in_background(range(1000), write):
            found.append(result)
    assert found == [0]
