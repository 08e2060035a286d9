"""Who does the work of a stage: `--devices`, `--ray`, and `--part i/n`, one of several processes started apart."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sfm_match.errors import UsageError, quoted
from sfm_match.options.base import AUTO, ENGINE, Refused, option, require
from sfm_match.options.devices import EVERY_GPU, split_device

T = TypeVar("T")
MOST = 100_000
ONLY_JOBS = Refused(("infer", ENGINE))


@dataclass(frozen=True)
class Part:
    """One of several parts of equal size."""

    number: int  # from 1
    of: int

    @classmethod
    def parse(cls, text: str, where: str = "--part") -> Self:
        """`2/4` -> the second of four. Raises UsageError for what is not such a text."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        number, of = (int(group) for group in found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST:
            raise UsageError(
                f"{where} {quoted(text)}: must be i/n with 1 <= i <= n <= {MOST:,}, as 2/4: the second of four"
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, everything: Sequence[T]) -> Sequence[T]:
        """What is this part's: a run of neighbours, which have files in common. The parts make up the whole."""
        count = len(everything)
        return everything[count * (self.number - 1) // self.of : count * self.number // self.of]


def check_device(name: str, where: str) -> None:
    """Raises UsageError where it is not a device's; as all checks of options, `where` names the value."""
    split_device(name, where)


def check_devices(names: str, where: str) -> None:
    """As `check_device`, of a list."""
    for name in () if names == EVERY_GPU else names.split(","):
        split_device(name, where)


def check_part(part: str, where: str) -> None:
    """Raises UsageError for what is no part."""
    Part.parse(part, where)


def check_workers(devices: str | None, ray: str | None, part: str | None) -> None:
    """Raises UsageError where the work would be divided in two ways."""
    require(ray is None or devices is None, "--ray and --devices: give one of them")
    require(ray is None or part is None, "--ray and --part: give one of them")


def ray_option() -> Any:
    """`--ray` of a stage that workers of a cluster can do."""
    about = (
        "workers on a Ray cluster, one a GPU or a processor: its address, or without one the cluster that Ray knows "
        "of, or one on this machine; the folders are shared"
    )
    return option(None, about, bare=AUTO, fingerprinted=False, refused=ONLY_JOBS)
