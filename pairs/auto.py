"""Chooses a strategy by what is there: how many images, and whether their names tell a sequence."""

import itertools
import re
from collections.abc import Sequence

from pairs import PairsError
from pairs.sequential import sequences

EXHAUSTIVE_UP_TO = 200  # images; 19,900 pairs
EXHAUSTIVE_AT_ALL = 3000  # images; 4,498,500 pairs, a day and more on a small machine
MOST = 0.9  # of the images
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def choose(names: Sequence[str], located: float = 0.0) -> tuple[str, str]:
    """The strategy's name and the reason, in a few words.

    Args:
        names: of the images.
        located: share of them that have a GPS position.

    Raises:
        PairsError: too many images for the only strategy that would serve.
    """
    count = len(names)
    if count <= EXHAUSTIVE_UP_TO:
        return "exhaustive", f"{count} images are few enough to match every pair"
    share = consecutive_share(names)
    if located >= MOST:
        if share >= MOST:
            return "sequential+spatial", f"{count} images with GPS, and names that follow one another"
        return "spatial", f"{count} images, {located:.0%} of them with GPS"
    if share >= MOST:
        return "sequential", f"{count} images, and {share:.0%} of the names follow one another by number"
    if count <= EXHAUSTIVE_AT_ALL:
        return "exhaustive", f"{count} images whose names tell no order; this will take long"
    raise PairsError(
        f"{count:,} images whose names tell no order, every pair would be {count * (count - 1) // 2:,}; "
        "choose `sequential` or `list`, or `exhaustive` if you mean it"
    )


def consecutive_share(names: Sequence[str]) -> float:
    """Share of neighbours in natural order whose last number grows, by a step of at most 10."""
    follows = total = 0
    for sequence in sequences(names):
        numbers = [_LAST_NUMBER.search(names[i]) for i in sequence]
        for before, after in itertools.pairwise(numbers):
            total += 1
            if before and after:
                follows += 1 <= int(after[1]) - int(before[1]) <= 10
    return follows / total if total else 0.0
