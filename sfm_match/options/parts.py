"""`--part i/n`: the share of a stage's work that one of several processes does, each started on its own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from sfm_match.errors import UsageError

T = TypeVar("T")
MOST = 100_000


@dataclass(frozen=True)
class Part:
    """One of several parts of equal size."""

    number: int  # from 1
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2/4` -> the second of four. Raises UsageError for what is not such a text."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        number, of = (int(group) for group in found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST:
            raise UsageError(
                f"--part {text[:80]!r}: must be i/n with 1 <= i <= n <= {MOST:,}, as 2/4: the second of four"
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, everything: Sequence[T]) -> Sequence[T]:
        """What is this part's: a run of neighbours, which have files in common. The parts make up the whole."""
        count = len(everything)
        return everything[count * (self.number - 1) // self.of : count * self.number // self.of]
