"""Coarse scores of pairs by workers of a cluster: a unit is some blocks of candidates.

Its worker reads a few keypoints of their images; scores come back, in the order of the candidates.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from pairs import Block
from pairs.prune import Floats, Scored, scored
from sfm_match.job.cores import cores
from sfm_match.job.executor import done_units, in_order
from sfm_match.job.progress import Clock
from sfm_match.stages.image_summaries import keypoint_subsets
from sfm_match.stages.state import FeatureSet
from sfm_match.store.columns import Names

if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool

_LEAST = 1 << 12  # pairs of a unit, of which 64 by 64 images have as many: a second's work


@dataclass(frozen=True)
class PruneContext:
    """What whoever scores pairs needs to know."""

    features: FeatureSet
    names: Names  # that pairs are places in


@dataclass(frozen=True)
class PruneUnit:
    """Blocks of candidates."""

    number: int
    blocks: list[Block]


@dataclass(frozen=True)
class PruneReceipt:
    """What came out of a unit."""

    number: int
    blocks: list[Block]
    scores: list[Floats]  # of each block, (K,)


def prune_units(context: PruneContext, _device: str, units: Iterator[PruneUnit], *_: object) -> Iterator[PruneReceipt]:
    """The work of one worker (`executor.Work`)."""
    for unit in units:
        used = np.unique(np.concatenate(unit.blocks))
        names = Names(context.names[place] for place in used.tolist())
        subsets = keypoint_subsets(Path(tempfile.gettempdir()), context.features, names)
        local = (np.searchsorted(used, block).astype(np.int32) for block in unit.blocks)
        with threadpool_limits(1, "blas"):
            scores = [found for _, found in scored(local, subsets, cores())]
        yield PruneReceipt(unit.number, unit.blocks, scores)


def scored_by_workers(
    blocks: Iterable[Block], features: FeatureSet, names: Names, folder: Path, pool: "RayPool"
) -> Iterator[Scored]:
    """As `pairs.prune.scored`, by the workers of a pool; the scores are the same.

    Args:
        blocks: of candidates.
        features: of the images, in files that the workers read.
        names: that the pairs are places in.
        folder: of the workspace.
        pool: of workers.
    """
    work = partial(prune_units, PruneContext(dataclasses.replace(features, damaged=()), names))
    receipts = done_units(pool.devices, work, _units(blocks), folder, lambda *_: None, Clock(), pool)
    for receipt in in_order(receipts):
        yield from zip(receipt.blocks, receipt.scores, strict=True)


def _units(blocks: Iterable[Block]) -> Iterator[PruneUnit]:
    """Blocks are scored as they are: what is multiplied together decides the last digits."""
    number, waiting = 0, list[Block]()
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _LEAST:
            yield PruneUnit(number, waiting)
            number, waiting = number + 1, []
    if waiting:
        yield PruneUnit(number, waiting)
