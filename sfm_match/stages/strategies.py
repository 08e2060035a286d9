"""From the names of strategies to their streams of pairs: each gets what it asks for of the workspace."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs import Block
from pairs.named import chosen
from pairs.prune import Scored, above, best, scored
from pairs.spatial import east_north_up
from pairs.union import union
from sfm_match.colmap.database_check import check_database
from sfm_match.colmap.model_io import read_observations, read_poses
from sfm_match.colmap.queries import read_record, verified_pairs
from sfm_match.errors import NothingDone
from sfm_match.job.cores import cores
from sfm_match.options.pairs import LOOP_DETECTION, STRATEGIES, PairsOptions, Strategy
from sfm_match.stages.base import Job, ray_pool
from sfm_match.stages.image_summaries import VectorFile, image_vectors, keypoint_subsets
from sfm_match.stages.prune_units import scored_by_workers
from sfm_match.stages.state import FeatureSet
from sfm_match.store.columns import Names
from sfm_match.store.pairs import read_pairs

# Least scores of pairs that are kept. Found with dedode-nano, of pairs of which 15 matches agree with the model of all:
# of six upright scenes 0.98 stay in each, and a tenth of unrelated images; turned images' partners score less.
_LEAST_SCORE, _LEAST_SCORE_ROTATED = 1.0, 0.75
_FROM_FEATURES = "vectors"  # the argument of a strategy that looks at descriptors


@dataclass(frozen=True)
class Sources:
    """What strategies start from: their arguments, by name. Each is read when it is first asked for."""

    job: Job
    options: PairsOptions

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.names)

    @cached_property
    def names(self) -> Names:
        """Of the images."""
        usable = self.job.collection.usable
        return usable.names if len(usable) == len(usable.names) else Names(usable)

    @cached_property
    def features(self) -> FeatureSet:
        """Raises NothingDone where images are not extracted."""
        try:
            found = self.job.features
        except NothingDone as error:
            what = "pruning" if self.options.prune else f"--strategy {self.options.strategy}"
            raise NothingDone(f"{what} looks at descriptors; {error}") from error
        if not found.counts:
            raise NothingDone(f"{self.job.workspace.folder}: no image has features")
        return found

    @cached_property
    def vectors(self) -> VectorFile:
        """(N, T, V) of `image_vectors`."""
        return image_vectors(self.job.workspace.folder, self.features, self.names)

    @cached_property
    def queries(self) -> NDArray[np.int32]:
        """Images that retrieval asks for partners of."""
        return chosen(self.names, self.options.query_prefix, self.options.query_list)

    @cached_property
    def database(self) -> NDArray[np.int32]:
        """Images among which retrieval looks for partners."""
        return chosen(self.names, self.options.db_prefix, self.options.db_list)

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """(N, 3) metres, NaN where the image has no GPS."""
        nowhere = (np.nan, np.nan, np.nan)
        located = [header.location or nowhere for header in self.job.collection.usable.values()]
        table = np.array([[np.nan if value is None else value for value in one] for one in located], np.float64)
        return east_north_up(*table.reshape(-1, 3).T)

    @cached_property
    def _poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return read_poses(self._model, self.names)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(N, 3) of projection, of the reference model."""
        return self._poses[0]

    @property
    def directions(self) -> NDArray[np.float64]:
        """(N, 3) viewing directions, of the reference model."""
        return self._poses[1]

    @cached_property
    def _observations(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return read_observations(self._model, self.names)

    @property
    def images(self) -> NDArray[np.int64]:
        """(O,) the image of each observation of the reference model."""
        return self._observations[0]

    @property
    def points(self) -> NDArray[np.int64]:
        """(O,) the point of each observation of the reference model."""
        return self._observations[1]

    @property
    def _model(self) -> Any:
        if self.options.reference_model is None:  # options.validate() refuses this
            raise ValueError(f"the strategy `{self.options.strategy}` needs a model")
        return self.options.reference_model

    @property
    def verified_from(self) -> str:
        """What the database was built from.

        Raises:
            NothingDone: there is no database with verified pairs.
        """
        database = self.job.workspace.database
        inputs = read_record(database, "inputs")
        if inputs is not None:
            check_database(database)
        if inputs is None or not len(self.verified):
            raise NothingDone(
                f"{self.job.workspace.folder}: no verified pairs yet; --strategy {self.options.strategy} "
                "is a second round and starts from those of `sfm-match import`"
            )
        return inputs

    @cached_property
    def verified(self) -> NDArray[np.int64]:
        """(E, 2) verified pairs."""
        return verified_pairs(self.job.workspace.database, self.names)

    @cached_property
    def tried(self) -> NDArray[np.int64]:
        """(P, 2) pairs of `pairs.txt`."""
        return read_pairs(self.job.workspace.pairs, self.names)

    def strategies(self) -> list[Strategy]:
        """Those of the options, each once."""
        parts = tuple(dict.fromkeys(self.options.parts()))
        if "exhaustive" in parts:  # it has all pairs of the others
            parts = ("exhaustive",)
        found = [STRATEGIES[part] for part in parts]
        if "sequential" in parts and self.options.loop_detection:
            found.append(LOOP_DETECTION)
        return found

    def call(self, function: str, leave_out: tuple[str, ...] = ()) -> Any:
        """Calls a function of `pairs` with the arguments that it names."""
        called = _function(function)
        return called(**{name: self._argument(name) for name in _arguments(called) if name not in leave_out})

    def _argument(self, name: str) -> Any:
        return getattr(self, name) if hasattr(type(self), name) else getattr(self.options, name)

    def stream(self, strategy: Strategy) -> Iterator[Block]:
        """Its pairs. Raises PairsError, now or when they are read, where it cannot serve."""
        stream: Iterator[Block] = self.call(strategy.stream)
        return stream

    def check(self, strategy: Strategy) -> None:
        """Raises PairsError where a strategy cannot serve and this can be known before there are features."""
        if strategy.try_early:
            for _ in self.stream(strategy):
                pass
        elif looks_at_features(strategy):
            for name in _arguments(_function(strategy.stream)):
                if name != _FROM_FEATURES:
                    self._argument(name)

    @property
    def needs_features(self) -> bool:
        """Whether the options' strategies, or pruning, look at descriptors."""
        return self.options.prune or any(map(looks_at_features, self.strategies()))


def looks_at_features(strategy: Strategy) -> bool:
    """Whether it serves only after images are extracted."""
    return _FROM_FEATURES in _arguments(_function(strategy.stream))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _arguments(function: Callable[..., Any]) -> list[str]:
    """The names of those that `Sources` or the options have; others keep their defaults."""
    known = {f.name for f in dataclasses.fields(PairsOptions)}
    return [name for name in inspect.signature(function).parameters if name in known or hasattr(Sources, name)]


@dataclass
class Tally:
    """Pairs that the strategies proposed, before pruning."""

    candidates: int = 0


def all_pairs(sources: Sources, tally: Tally) -> Iterator[Block]:
    """Of all strategies of the options, each pair once, pruned where that is asked for."""
    every = [sources.stream(strategy) for strategy in sources.strategies()]
    blocks = every[0] if len(every) == 1 else union(sources.count, every)
    return _pruned(blocks, sources, tally) if sources.options.prune else blocks


def _pruned(blocks: Iterator[Block], sources: Sources, tally: Tally) -> Iterator[Block]:
    options, count, features = sources.options, sources.count, sources.features
    folder, pool = sources.job.workspace.folder, ray_pool(options.ray, None)
    if pool is None:
        candidates = scored(blocks, keypoint_subsets(folder, features, sources.names), cores())
    else:
        candidates = scored_by_workers(blocks, features, sources.names, folder, pool)
    every = "exhaustive" in options.parts()  # alone takes long
    job = sources.job if every else dataclasses.replace(sources.job, quiet=True)
    progress = job.progress("pairs", count * (count - 1) // 2, "candidates")

    def counted() -> Iterator[Scored]:
        for block, scores in candidates:
            tally.candidates += len(block)
            progress.advance(len(block))
            yield block, scores

    try:
        with threadpool_limits(1, "blas"):  # as in the matcher: small products, in threads
            if options.prune_num_images is None:
                least = options.prune_threshold
                if least is None:
                    least = _LEAST_SCORE if features.rotations == 1 else _LEAST_SCORE_ROTATED
                yield from above(counted(), least)
            else:
                yield from best(count, counted(), options.prune_num_images)
    finally:
        progress.close()
