"""Matches of pairs block by block: what a worker does, without the workspace."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.files import Header
from sfm_match.job.concurrency import in_background
from sfm_match.job.progress import Clock
from sfm_match.matching.matcher import Descriptors, ImageFeatures, MatchSettings, Names, create_matcher
from sfm_match.stages.feature_cache import KEPT_IMAGES, FeatureCache, kept_bytes
from sfm_match.store.matches import Matches, PairBlock, write_block

BLOCK = 32  # images; 2 x 32 x 4096 x 256 float32 are 268 MB, and a kill costs at most 1024 pairs


@dataclass(frozen=True)
class BlockPlan:
    """Pairs that one file holds: of two blocks of images, or of several where few of their pairs are wanted."""

    path: Path
    images: dict[str, str]  # name -> signature of its file, block after block
    first: int  # how many of `images` make the first of the two groups that go to a device
    pairs: NDArray[np.int32]  # (P, 2) rows of `images`

    @property
    def groups(self) -> tuple[Names, Names]:
        """The names, as they go to a device: at most `BLOCK` each."""
        names = tuple(self.images)
        return names[: self.first], names[self.first :]


@dataclass(frozen=True)
class MatchContext:
    """What pairs are matched with, the device apart."""

    features: Path  # folder
    units: Mapping[str, int]  # image -> unit that holds its features
    headers: Mapping[str, Header]  # of the images
    fingerprint: str
    matcher: str  # its name
    settings: MatchSettings
    workers: int = 1  # on this machine


@dataclass(frozen=True)
class BlockReceipt:
    """A block of pairs whose file is on the disk."""

    matches: int
    engine: str  # what ran, for the report; empty: numpy


@dataclass(frozen=True)
class _Timed:
    """The time that a matcher waits for features."""

    images: ImageFeatures
    clock: Clock

    def descriptors(self, names: Sequence[str]) -> list[Descriptors]:
        with self.clock.on("read"):
            return self.images.descriptors(names)

    def keypoints(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        with self.clock.on("read"):
            return self.images.keypoints(names)

    def headers(self, names: Sequence[str]) -> list[Header]:
        return self.images.headers(names)


def match_blocks(
    context: MatchContext, device: str, plans: Iterator[BlockPlan], advance: Callable[[int], None], clock: Clock
) -> Iterator[BlockReceipt]:
    """Matches blocks of pairs on a device and writes their files (an `executor.Work`, the context bound).

    Raises:
        EngineError: the engine refuses the network, or has no memory for one pair.
        ShardError: a file of features cannot be read.
        OSError: a file cannot be written.
    """
    with clock.on("load"):
        matcher = create_matcher(context.matcher, context.settings, device, advance)
    limit = kept_bytes(on_device=matcher.on_device, workers=context.workers)
    most = None if matcher.on_device else KEPT_IMAGES
    images = _Timed(FeatureCache(context.features, context.units, context.headers, limit, most), clock)

    def matched(plan: BlockPlan) -> list[Matches]:
        with clock.on("match"):
            return matcher.match(plan.groups, images, plan.pairs)

    def write(result: tuple[BlockPlan, list[Matches]]) -> BlockReceipt:
        plan, matches = result
        write_block(plan.path, PairBlock(context.fingerprint, plan.images, plan.pairs, matches))
        ran = "; ".join(filter(None, (matcher.engine, matcher.note)))  # which kernels, is known after the first call
        return BlockReceipt(sum(len(m.indices) for m in matches), ran)

    results = matcher.workers.each(plans, matched, partial(clock.on, "match"))
    yield from in_background(results, write, partial(clock.on, "write"))
