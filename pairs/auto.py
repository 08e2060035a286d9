"""Chooses a strategy by what is there: how many images, whether they are frames, or their names tell so, GPS."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pairs.sequential import sequences

FRAMES_EXHAUSTIVE_UP_TO = 20  # a sequence with quadratic overlap has next to all their pairs
EXHAUSTIVE_UP_TO = 200  # images; 19,900 pairs
PRUNED_UP_TO = 2000  # images; 1,999,000 pairs, which are scored in the time in which some 10,000 are matched
PRUNED_TO = 50  # of each image
MOST = 0.9  # of the images
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class Choice:
    """A strategy, the reason in a few words, and the options that it needs."""

    strategy: str
    reason: str
    options: Mapping[str, bool | int] = field(default_factory=dict)


def choose(names: Sequence[str], located: float = 0.0, frames: float = 0.0) -> Choice:
    """What serves these images.

    Args:
        names: of the images.
        located: share of them that have a GPS position.
        frames: share of them that are frames of a video.
    """
    count = len(names)
    if frames == 1 and count > FRAMES_EXHAUSTIVE_UP_TO:
        reason = "frames of a video: with those that follow, farther ones, and returns are looked for"
        return Choice("sequential", reason, {"quadratic_overlap": True, "loop_detection": True})
    if count <= EXHAUSTIVE_UP_TO:
        return Choice("exhaustive", f"{count} images are few enough to match every pair")
    share = consecutive_share(names)
    if located >= MOST:
        if share >= MOST:
            return Choice("sequential+spatial", f"{count:,} images with GPS, and names that follow one another")
        return Choice("spatial", f"{count:,} images, {located:.0%} of them with GPS")
    if share >= MOST:
        reason = f"{count:,} images, and {share:.0%} of the names follow one another by number; returns are looked for"
        return Choice("sequential", reason, {"loop_detection": True})
    if count <= PRUNED_UP_TO:
        reason = f"{count:,} images whose names tell no order; of all pairs, the best {PRUNED_TO} an image are kept"
        return Choice("exhaustive", reason, {"prune": True, "prune_num_images": PRUNED_TO})
    return Choice("retrieval", f"{count:,} images whose names tell no order, too many to look at every pair")


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
