"""How right the time left is: what the bars say after 10, 25 and 50 % of a stage's time, over what it then takes.

    python scripts/benchmarks/time_left.py IMAGES --times 3
    python scripts/benchmarks/time_left.py IMAGES --workspace WORKSPACE   # whose pairs are matched: import alone

Of several scenes in one folder, where pairs cost most unlike. Seconds are those of processors, which those who share
the machine do not change; with `--wall` they are those of the clock on the wall.
"""

import argparse
import statistics
import tempfile
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any

import sfm_match
from sfm_match.job import progress
from sfm_match.stages import base

AT = (0.1, 0.25, 0.5)
LEAST_SECONDS = 1.0  # of a stage that is told of


class _Time:
    """In place of the module `time` where progress is made."""

    monotonic = staticmethod(time.process_time)


class Recorded(progress.Progress):
    """Remembers what it said."""

    all: "list[Recorded]" = []  # noqa: RUF012 - of this process

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        self.begun = self.ended = _Time.monotonic()
        self.said: list[tuple[float, float | None]] = []  # when, and how many seconds are left
        self.all.append(self)

    def advance(self, count: int, work: float | None = None, /) -> None:
        super().advance(count, work)
        self.said.append((_Time.monotonic(), self.seconds_left))

    def close(self) -> None:
        super().close()
        self.ended = _Time.monotonic()

    @property
    def name(self) -> str:
        return f"{self._stage}, {self._total:,} {self._unit}"

    def over_true(self, share: float) -> float | None:
        """The time left that it said last, when that share of the time was over; None where it said none."""
        now = self.begun + share * (self.ended - self.begun)
        count = bisect_right(self.said, now, key=lambda one: one[0])
        when, left = self.said[count - 1] if count else (now, None)
        return None if left is None else left / (self.ended - when)


def table(jobs: list[list[Recorded]]) -> str:
    """Medians over the same job, done again and again."""
    lines = ["| stage | seconds | " + " | ".join(f"at {share:.0%}" for share in AT) + " |", "|---" * 5 + "|"]
    for same in zip(*jobs, strict=True):
        seconds = statistics.median(one.ended - one.begun for one in same)
        if seconds < LEAST_SECONDS:
            continue
        found = [[one.over_true(share) for one in same] for share in AT]
        told = [[one for one in values if one is not None] for values in found]
        cells = [f"{statistics.median(values):.2f}" if values else "none" for values in told]
        lines.append(f"| {same[0].name} | {seconds:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    chosen = parser.parse_args()
    if chosen.wall:
        _Time.monotonic = staticmethod(time.monotonic)
    vars(progress)["time"] = _Time
    vars(base)["Progress"] = Recorded
    jobs = []
    for _ in range(chosen.times):
        Recorded.all.clear()
        if chosen.workspace is None:
            with tempfile.TemporaryDirectory() as folder:
                sfm_match.run(chosen.images, Path(folder) / "workspace", report=False)
        else:
            sfm_match.import_(chosen.workspace, overwrite=True)
        jobs.append(list(Recorded.all))
    print(table(jobs))


if __name__ == "__main__":
    main()
