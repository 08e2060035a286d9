"""Matches of pairs block by block: what a worker does, without the workspace."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.features.extractor import runtime_for
from sfm_match.job.concurrency import Lanes, in_background
from sfm_match.job.executor import threads_each
from sfm_match.job.progress import Clock
from sfm_match.matching.dual_softmax import match_turned
from sfm_match.matching.on_device import BlockMatcher
from sfm_match.options.stages import MatchOptions
from sfm_match.runtime import choose
from sfm_match.store.features import read_features, unit_path
from sfm_match.store.matches import Matches, PairBlock, write_block

Descriptors = NDArray[np.float16]  # (N, D) of an image, unit length
BLOCK = 32  # images; 2 x 32 x 4096 x 256 float32 are 268 MB, and a kill costs at most 1024 pairs
KEPT = 1 << 29  # bytes of descriptors in memory: 7 blocks of 32 images with 4096 x 256 float16
SHARE = 8  # with a GPU, this part of the machine's memory where that is more: reading would hold it up


@dataclass(frozen=True)
class BlockPlan:
    """Pairs that one file holds: of two blocks of images, or of several where few of their pairs are wanted."""

    path: Path
    images: dict[str, str]  # name -> signature of its file, block after block
    first: int  # how many of `images` make the first of the two groups that go to a device
    pairs: NDArray[np.int32]  # (P, 2) rows of `images`

    @property
    def groups(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names, as they go to a device: at most `BLOCK` each."""
        names = tuple(self.images)
        return names[: self.first], names[self.first :]


@dataclass(frozen=True)
class MatchContext:
    """What pairs are matched with, the device apart."""

    features: Path  # folder
    units: Mapping[str, int]  # image -> unit that holds its features
    fingerprint: str
    options: MatchOptions
    threshold: float
    rotations: int  # in which images were described
    keypoints: int  # of an image, at most
    dimension: int  # of a descriptor
    workers: int = 1  # on this machine


@dataclass(frozen=True)
class BlockReceipt:
    """A block of pairs whose file is on the disk."""

    matches: int
    engine: str  # what ran, for the report; empty: numpy


def kept_bytes(*, on_device: bool, workers: int) -> int:
    """Bytes of descriptors that each of the workers keeps in memory."""
    if not on_device or not hasattr(os, "sysconf"):  # Windows does not tell
        return KEPT
    return max(KEPT, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (SHARE * workers))


class DescriptorCache:
    """Descriptors of the images that were asked for last. Several threads may ask."""

    def __init__(self, folder: Path, units: Mapping[str, int], limit: int = KEPT) -> None:
        """
        Args:
            folder: of features.
            units: image -> unit that holds its features.
            limit: bytes to keep.
        """
        self._folder, self._units, self._limit = folder, units, limit
        self._held: OrderedDict[str, Descriptors] = OrderedDict()  # the latest used last
        self._bytes = 0
        self._one_at_a_time = Lock()
        self.read = 0  # images, from files

    def get(self, names: Sequence[str]) -> list[Descriptors]:
        """Of each image. Raises ShardError where a file cannot be read."""
        with self._one_at_a_time:  # HDF5 reads one at a time, too
            found = {name: self._held[name] for name in names if name in self._held}
            for name in found:
                self._held.move_to_end(name)
            absent: dict[int, list[str]] = {}
            for name in names:
                if name not in found:
                    absent.setdefault(self._units[name], []).append(name)
            for unit, missing in absent.items():
                for name, features in read_features(unit_path(self._folder, unit), missing).items():
                    found[name] = self._held[name] = features.descriptors
                    self._bytes += features.descriptors.nbytes
                self.read += len(missing)
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
            return [found[name] for name in names]


class _Matcher(Protocol):
    """Matches the pairs of a block."""

    @property
    def note(self) -> str:
        """Which kernels it chose, for the report; empty where there was no choice."""

    def match(
        self,
        groups: Sequence[tuple[str, ...]],
        read: Callable[[Sequence[str]], list[Descriptors]],
        pairs: NDArray[np.int32],
    ) -> list[Matches]:
        """Of (P, 2) pairs of places in the groups, one after the other; `read` gives descriptors."""


@dataclass(frozen=True)
class _OnHost:
    """In threads, with numpy."""

    context: MatchContext
    advance: Callable[[int], None]
    note: ClassVar[str] = ""

    def match(
        self,
        groups: Sequence[tuple[str, ...]],
        read: Callable[[Sequence[str]], list[Descriptors]],
        pairs: NDArray[np.int32],
    ) -> list[Matches]:
        single = [one.astype(np.float32) for one in read([name for group in groups for name in group])]
        rotations, threshold = self.context.rotations, self.context.threshold

        def one(pair: NDArray[np.int32]) -> Matches:
            temperature = self.context.options.inverse_temperature
            return match_turned(single[pair[0]], single[pair[1]], rotations, threshold, temperature)

        matches = []
        # one BLAS thread a pair and pairs in parallel: blocks this small lose to barriers
        with threadpool_limits(1, "blas"):
            pool = ThreadPoolExecutor(threads_each(self.context.options.workers))
            try:
                for result in pool.map(one, pairs):
                    matches.append(result)
                    self.advance(1)
            finally:
                pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the block's other pairs
        return matches


def _matcher(context: MatchContext, device: str, advance: Callable[[int], None]) -> tuple[_Matcher, Lanes, str]:
    """A matcher, its lanes, and in words what it is."""
    choice = choose(device)
    if choice.device == "cpu":
        return _OnHost(context, advance), Lanes(1), ""
    if context.rotations > 1:
        note = "matched on the CPU: quarter turns are not compared on a GPU"
        return _OnHost(context, advance), Lanes(1), note
    runtime, _ = runtime_for(choice.name)
    on_device = BlockMatcher(
        runtime,
        context.threshold,
        context.options.inverse_temperature,
        images=2 * BLOCK,
        keypoints=context.keypoints,
        dimension=context.dimension,
        advance=advance,
    )
    return on_device, runtime.lanes, f"{runtime.provider}{choice.note}"


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
        matcher, lanes, engine = _matcher(context, device, advance)
    limit = kept_bytes(on_device=isinstance(matcher, BlockMatcher), workers=context.workers)
    cache = DescriptorCache(context.features, context.units, limit)

    def read(names: Sequence[str]) -> list[Descriptors]:
        with clock.on("read"):
            return cache.get(names)

    def matched(plan: BlockPlan) -> list[Matches]:
        with clock.on("match"):
            return matcher.match(plan.groups, read, plan.pairs)

    def write(result: tuple[BlockPlan, list[Matches]]) -> BlockReceipt:
        plan, matches = result
        write_block(plan.path, PairBlock(context.fingerprint, plan.images, plan.pairs, matches))
        ran = "; ".join(filter(None, (engine, matcher.note)))  # which kernels, is known after the first call
        return BlockReceipt(sum(len(m.indices) for m in matches), ran)

    results = lanes.each(plans, matched, partial(clock.on, "match"))
    yield from in_background(results, write, partial(clock.on, "write"))
