"""Verification by workers of a cluster: a unit is a file of matches, whose pairs one worker judges.

Workers read matches and features; verdicts come back, and one process writes them into the database.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.verification import (
    Judged,
    Judging,
    judge,
    write_verdicts,
    writing_verdicts,
)
from sfm_match.job.executor import done_units, in_order
from sfm_match.job.progress import Advance, Clock
from sfm_match.stages.listed_matches import listed_blocks, named_matches
from sfm_match.stages.state import FeatureSet, MatchSet, iter_features
from sfm_match.store.matches import BlockHead

if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool


@dataclass(frozen=True)
class VerifyContext:
    """What whoever judges units needs to know."""

    features: FeatureSet
    judging: Judging


@dataclass(frozen=True)
class VerifyUnit:
    """A file of matches."""

    number: int
    path: Path
    head: BlockHead
    pairs: NDArray[np.int64]  # numbers of those that have no verdict


@dataclass(frozen=True)
class VerifyReceipt:
    """What came out of a unit."""

    number: int
    judged: list[Judged]


def verify_units(
    context: VerifyContext,
    _device: str,
    units: Iterator[VerifyUnit],
    _advance: Advance,
    _clock: Clock,
) -> Iterator[VerifyReceipt]:
    """The work of one worker (`executor.Work`)."""
    for unit in units:
        names = list(unit.head.images)
        used = [names[place] for place in np.unique(unit.head.pairs[unit.pairs])]
        described = iter_features(context.features, used, descriptors=False)
        keypoints = {name: one.keypoints for name, one in described}
        found = named_matches(unit.path, unit.pairs, context.features)
        yield VerifyReceipt(unit.number, list(judge(context.judging, keypoints.__getitem__, found)))


def verify_by_workers(
    database: Path, matches: MatchSet, features: FeatureSet, judging: Judging, advance: Advance, pool: "RayPool"
) -> None:
    """As `verification.verify_pairs`, by the workers of a pool; the database is the same, byte for byte.

    Args:
        database: with images, which no other process has open.
        matches: of all pairs.
        features: of the images.
        judging: of the database.
        advance: told how many pairs are done, and how much work they were.
        pool: of workers, which read the files of matches and features.

    Raises:
        ShardError: a file cannot be read.
    """
    context = VerifyContext(dataclasses.replace(features, damaged=()), judging)
    with writing_verdicts(database) as (connection, done):
        units: list[VerifyUnit] = []
        for path, head, numbers in listed_blocks(matches, features):
            names = list(head.images)
            ids = [judging.number(names[i], names[j]) for i, j in head.pairs[numbers]]
            left = numbers[[number not in done for number in ids]]
            advance(len(numbers) - len(left), 0.0)
            if len(left):
                units.append(VerifyUnit(len(units), path, head, left))
        work = partial(verify_units, context)
        receipts = done_units(pool.devices, work, units, database.parent, lambda *_: None, Clock(), pool)
        # rows that come in another order make other pages of the file
        write_verdicts(connection, (one for receipt in in_order(receipts) for one in receipt.judged), advance)
