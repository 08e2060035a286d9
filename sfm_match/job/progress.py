"""What a running stage shows, and what it says when it ends."""

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Protocol

# Work of which nobody can say how much it is: no time left is better than a wrong one. Of mapping, n^1.3 of n images
# was the best law, and told 0.9 to 4.4 times the truth: images are left out, or the last adjustment takes long.
UNKNOWN = math.inf
_RECENT_SECONDS = 20.0  # of which the rate is taken, or half of the time so far
_RATED_SECONDS = 0.1  # of a stage that has a rate worth reading
PIPE_SECONDS = 10.0  # between lines where no terminal shows a bar
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}]"  # tqdm's own, with another time left

OnProgress = Callable[[str, int, int], None]  # a stage or a part of one, how many are done, of how many


class Advance(Protocol):
    """`Progress.advance`."""

    def __call__(self, count: int, work: float | None = None, /) -> None: ...


class MakeProgress(Protocol):
    """Of what, how many, in which unit, and how much work they are (`Progress`)."""

    def __call__(self, what: str, total: int, unit: str, work: float | None = None, /) -> "Progress": ...


@cache
def _bar_class() -> Any:
    """tqdm's, made where one is shown: a machine of the GPU check may lack tqdm."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        """Its rate and time left are those of the plain lines: tqdm's own follow each batch."""

        rate_of_late: float | None = None
        seconds_left: float | None = None

        @property
        def format_dict(self) -> dict[str, Any]:
            shown = dict(super().format_dict)
            left = "?" if self.seconds_left is None else tqdm.format_interval(self.seconds_left)
            return {**shown, "rate": self.rate_of_late or shown["rate"], "left": left}

    return Bar


class Progress:
    """One line a stage: a bar on a terminal, a plain line every 10 s on a pipe. Any thread may advance it.

    People count in images and pairs; the time left is told by work, of which some images and pairs are more.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        unit: str,
        work: float | None = None,
        *,
        quiet: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Of `total` units, which are `work` together, in any measure of what costs alike; None: they cost alike.

        With `UNKNOWN` work, no time left is told.
        """
        terminal = sys.stderr.isatty()
        self._plain = not terminal and not quiet
        quiet = quiet or not total
        self._bar = _bar_class()(
            total=total,
            desc=stage,
            unit=f" {unit}",
            disable=not terminal or quiet,
            leave=False,
            dynamic_ncols=True,
            bar_format=_BAR,
        )
        self._stage, self._unit, self._total, self._on_progress = stage, unit, total, on_progress
        self._work = total if work is None else work
        self._done, self._worked, self._started = 0, 0.0, time.monotonic()
        self._said = self._started
        self._recent = deque([(self._started, 0, 0.0)])  # when, how many were done, how much work; one a second at most
        self._one_at_a_time = threading.Lock()
        self.seconds_left: float | None = None  # as last told; None: nobody knows

    def advance(self, count: int, work: float | None = None, /) -> None:
        """By units, which were `work` together; None: as many as they are."""
        with self._one_at_a_time:
            self._advance(count, count if work is None else work)

    def _advance(self, count: int, work: float) -> None:
        self._done += count
        self._worked += work
        now = time.monotonic()
        rate, speed = self._rates(now)
        left = max(self._work - self._worked, 0.0)
        self.seconds_left = left / speed if speed and left != UNKNOWN else None
        self._bar.rate_of_late, self._bar.seconds_left = rate, self.seconds_left
        self._bar.update(count)
        if self._on_progress is not None:
            self._on_progress(self._stage, self._done, self._total)
        if self._plain and now - self._said >= PIPE_SECONDS:
            ends = "time left unknown" if self.seconds_left is None else f"{self.seconds_left:.0f} s left"
            line = f"{self._stage} {self._done:,}/{self._total:,} {self._unit}, {rate:.1f}/s, {ends}"
            print(line, file=sys.stderr, flush=True)
            self._said = now
        if len(self._recent) == 1 or now - self._recent[-1][0] >= 1.0:
            self._recent.append((now, self._done, self._worked))

    def _rates(self, now: float) -> tuple[float, float]:
        """Units and work a second, of late: the first results come late, and at once what an earlier run had done."""
        half = (now - self._started) / 2
        oldest = now - max(_RECENT_SECONDS, half)
        while len(self._recent) > 1:
            begun = self._recent[0][0] > self._started
            if self._recent[1][0] > (oldest if begun else now - half):
                break
            self._recent.popleft()
        since, done, worked = self._recent[0]
        seconds = max(now - since, 1e-9)
        return (self._done - done) / seconds, (self._worked - worked) / seconds

    def close(self) -> None:
        self._bar.close()


def no_progress(what: str, total: int, unit: str, work: float | None = None, /) -> Progress:
    """A `MakeProgress` that shows nothing."""
    return Progress(what, total, unit, work, quiet=True)


class Clock:
    """Where the time of a stage goes: that of the thread that made the clock.

    What other threads do at the same time is not counted, so they may be given the clock, too. Within an activity, the
    time of another one is counted for that one alone.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.spent: dict[str, float] = {}
        self._thread = threading.get_ident()
        self._inner: list[float] = []  # seconds within each activity that belong to another one

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        if threading.get_ident() != self._thread:
            yield
            return
        start = time.monotonic()
        self._inner.append(0.0)
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self.spent[what] = self.spent.get(what, 0.0) + seconds - self._inner.pop()
            if self._inner:
                self._inner[-1] += seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass
class StageReport:
    """What a stage did."""

    stage: str
    unit: str  # of what is counted: images, pairs
    done: int  # computed now
    cached: int = 0  # computed by an earlier run, and up to date
    failed: int = 0
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)  # activity -> seconds, of the stage's own thread
    detail: str = ""  # one more fact, in words
    facts: dict[str, Any] = field(default_factory=dict)  # numbers for --json
    told: list[str] = field(default_factory=list)  # the detail in lines, for people; empty: it is short

    def line(self, *, verbose: bool = False) -> str:
        """`import 55 pairs, 1.3 s, 43.4/s; 11 images, 54 pairs accepted`, and, where asked for, what took the time."""
        limit = self._limit() if verbose else ""
        return "; ".join(filter(None, (self._head(), self.detail))) + (f" — {limit}" if limit else "")

    def lines(self, *, verbose: bool = False) -> list[str]:
        """As `line`, a line a thing: the result first."""
        first, *others = self.told or [self.detail]
        return ["; ".join(filter(None, (self._head(), first))), *others, *filter(None, [self._limit()] * verbose)]

    def _head(self) -> str:
        parts = [f"{self.stage} {self.done:,} {self.unit}"]
        if self.done:
            parts.append(f"{self.seconds:.1f} s")
            if self.seconds >= _RATED_SECONDS:
                parts.append(f"{self.done / self.seconds:.1f}/s")
        elif self.cached:
            parts = [f"{self.stage}: nothing to do"]
        if self.cached:
            parts.append(f"{self.cached:,} {self.unit} up to date")
        if self.failed:
            parts.append(f"{self.failed:,} failed (failed.csv)")
        return ", ".join(parts)

    def _limit(self) -> str:
        """What took the time."""
        if not (self.done and self.spent and self.seconds > 0):
            return ""
        shares = {k: v / self.seconds for k, v in sorted(self.spent.items(), key=lambda kv: -kv[1])}
        shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)
        return f"{shown}: {next(iter(shares))} is the limit"

    def as_json(self) -> dict[str, Any]:
        """The fields and the facts; `standing` is the earlier name of `cached`, for scripts that read it."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("facts", "told")}
        return {**fields, "standing": self.cached, **self.facts}

    @property
    def standing(self) -> int:
        """The earlier name of `cached`."""
        return self.cached
