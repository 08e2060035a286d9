"""Dual softmax as a matcher: with numpy in threads on the CPU, as a network where there is a GPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.executor import threads_each
from sfm_match.matching.dual_softmax import match_rotated
from sfm_match.matching.matcher import ImageFeatures, Matcher, MatchSettings, Names
from sfm_match.matching.on_device import BlockMatcher
from sfm_match.models.engines import runtime_for
from sfm_match.runtime import choose
from sfm_match.store.matches import Matches


def create(settings: MatchSettings, device: str, advance: Callable[[int], None]) -> Matcher:
    """As `matcher.create_matcher`."""
    choice = choose(device)
    if choice.device == "cpu":
        return HostMatcher(settings, advance)
    if settings.rotations > 1:
        return HostMatcher(settings, advance, "matched on the CPU: rotations are not compared on a GPU")
    runtime, _ = runtime_for(choice.name)
    return BlockMatcher(
        runtime,
        settings.threshold,
        settings.inverse_temperature,
        images=2 * settings.group,
        keypoints=settings.keypoints,
        dimension=settings.dimension,
        advance=advance,
        engine=f"{runtime.provider}{choice.note}",
    )


class HostMatcher:
    """In threads, with numpy."""

    note = ""
    on_device = False

    def __init__(self, settings: MatchSettings, advance: Callable[[int], None], engine: str = "") -> None:
        """
        Args:
            settings: what to match with.
            advance: told how many pairs are done.
            engine: why it is this one, in words.
        """
        self.engine, self.workers = engine, WorkerThreads(1)
        self._settings, self._advance = settings, advance

    def match(self, groups: Sequence[Names], images: ImageFeatures, pairs: NDArray[np.int32]) -> list[Matches]:
        """As `Matcher.match`."""
        settings = self._settings
        every = images.descriptors([name for group in groups for name in group])
        single = [one.astype(np.float32) for one in every]

        def one(pair: NDArray[np.int32]) -> Matches:
            first, second = single[pair[0]], single[pair[1]]
            return match_rotated(first, second, settings.rotations, settings.threshold, settings.inverse_temperature)

        matches = []
        # one BLAS thread a pair and pairs in parallel: blocks this small lose to barriers
        with threadpool_limits(1, "blas"):
            pool = ThreadPoolExecutor(threads_each(settings.options.match_workers))
            try:
                for result in pool.map(one, pairs):
                    matches.append(result)
                    self._advance(1)
            finally:
                pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the block's other pairs
        return matches
