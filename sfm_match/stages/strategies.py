"""From the names of strategies to their streams of pairs: hands each what it needs of the workspace."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pairs import Block
from pairs.covisibility import covisibility
from pairs.exhaustive import exhaustive
from pairs.listed import listed
from pairs.loops import loop_detection
from pairs.named import chosen
from pairs.poses import poses
from pairs.prune import Scored, above, best, scored
from pairs.repair import repair
from pairs.retrieval import retrieval
from pairs.sequential import sequential
from pairs.spatial import east_north_up, spatial
from pairs.transitive import transitive
from pairs.union import union
from sfm_match.colmap.model_io import read_observations, read_poses
from sfm_match.colmap.queries import read_note, verified_pairs
from sfm_match.errors import NothingDone
from sfm_match.features.extractor import TURNS
from sfm_match.images.collection import Collection
from sfm_match.job.progress import Progress
from sfm_match.job.workspace import Workspace
from sfm_match.options.pairs import PairsOptions
from sfm_match.stages.extract import FeatureSet
from sfm_match.stages.image_summaries import image_sketches, image_vectors
from sfm_match.stages.match import current_features
from sfm_match.store.pairs import read_pairs

# Least scores of pairs that are kept. Found with dedode-nano, of pairs of which 15 matches agree with the model of all:
# of six upright scenes 0.98 stay in each, and a tenth of unrelated images; turned images' partners score less.
_PROMISING, _PROMISING_TURNED = 1.0, 0.75


@dataclass(frozen=True)
class Sources:
    """What strategies read; each is read when first asked for."""

    workspace: Workspace
    collection: Collection
    options: PairsOptions

    @cached_property
    def names(self) -> list[str]:
        return list(self.collection.usable)

    @property
    def needs_features(self) -> bool:
        """Whether the options' strategies read descriptors."""
        parts, options = set(self.options.parts()), self.options
        loops = "sequential" in parts and options.loop_detection
        return loops or options.prune or not parts.isdisjoint(("retrieval", "repair"))

    @cached_property
    def features(self) -> FeatureSet:
        """Raises NothingDone where images are not extracted."""
        try:
            found = current_features(self.workspace, self.collection)
        except NothingDone as error:
            what = "pruning" if self.options.prune else f"--strategy {self.options.strategy}"
            raise NothingDone(f"{what} looks at descriptors; {error}") from error
        if not found.counts:
            raise NothingDone(f"{self.workspace.folder}: no image has features")
        return found

    @property
    def turns(self) -> int:
        return TURNS if self.workspace.record()["extract"].get("turns") else 1

    @cached_property
    def vectors(self) -> NDArray[np.float16]:
        return image_vectors(self.workspace, self.features, self.names, self.turns)

    @property
    def verified_from(self) -> str:
        """What the database was built from.

        Raises:
            NothingDone: no database with verified pairs stands.
        """
        inputs = read_note(self.workspace.database, "inputs")
        if inputs is None or not len(self.verified):
            raise NothingDone(
                f"{self.workspace.folder}: no verified pairs yet; --strategy {self.options.strategy} "
                "is a second round and starts from those of `sfm-match import`"
            )
        return inputs

    @cached_property
    def verified(self) -> NDArray[np.int64]:
        return verified_pairs(self.workspace.database, self.names)

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 3) metres, NaN where the image has no GPS."""
        nowhere = (np.nan, np.nan, np.nan)
        located = [header.location or nowhere for header in self.collection.usable.values()]
        table = np.array([[np.nan if value is None else value for value in one] for one in located], np.float64)
        return east_north_up(*table.reshape(-1, 3).T)


@dataclass
class Tally:
    """Pairs that the strategies proposed, before pruning."""

    candidates: int = 0


def all_pairs(sources: Sources, tally: Tally, *, quiet: bool) -> Iterator[Block]:
    """Of all strategies of the options, each pair once, pruned where that is asked for."""
    blocks = candidates(sources)
    return _pruned(blocks, sources, tally, quiet=quiet) if sources.options.prune else blocks


def candidates(sources: Sources) -> Iterator[Block]:
    """Of all strategies of the options, each pair once."""
    parts = tuple(dict.fromkeys(sources.options.parts()))
    if "exhaustive" in parts:  # holds all the others
        parts = ("exhaustive",)
    every = [stream for part in parts for stream in streams(part, sources)]
    return every[0] if len(every) == 1 else union(len(sources.names), every)


def streams(strategy: str, sources: Sources) -> list[Iterator[Block]]:
    """Of one strategy. Raises PairsError, now or when they are read, where it cannot serve."""
    options, names = sources.options, sources.names
    if strategy == "exhaustive":
        return [exhaustive(len(names))]
    if strategy == "sequential":
        found = [sequential(names, options.overlap, options.quadratic_overlap)]
        if options.loop_detection:
            period, number = options.loop_detection_period, options.loop_detection_num_images
            found.append(loop_detection(names, sources.vectors, options.overlap, period, number))
        return found
    if strategy == "retrieval":
        queries, database = retrieval_sides(sources)
        return [retrieval(sources.vectors, options.num_images, queries, database)]
    if strategy == "spatial":
        return [spatial(sources.positions, options.max_num_neighbors, options.max_distance, options.ignore_z)]
    if strategy == "transitive":
        return [transitive(len(names), sources.verified)]
    if strategy == "repair":
        tried = read_pairs(sources.workspace.pairs, names)
        return [repair(sources.vectors, sources.verified, tried, options.repair_pairs)]
    return [_from_file(strategy, sources)]


def _from_file(strategy: str, sources: Sources) -> Iterator[Block]:
    options, names = sources.options, sources.names
    if strategy == "list" and options.match_list_path is not None:
        return listed(options.match_list_path, names)
    if options.reference_model is None:  # options.validate() refuses this
        raise ValueError(f"the strategy `{strategy}` needs a file")
    if strategy == "poses":
        centres, directions = read_poses(options.reference_model, names)
        return poses(centres, directions, options.num_matched, options.rotation_threshold, options.pose_distance)
    images, points = read_observations(options.reference_model, names)
    return covisibility(len(names), images, points, options.num_matched)


def retrieval_sides(sources: Sources) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which images ask, and which are asked for."""
    options, names = sources.options, sources.names
    return (
        chosen(names, options.query_prefix, options.query_list),
        chosen(names, options.db_prefix, options.db_list),
    )


def _pruned(blocks: Iterator[Block], sources: Sources, tally: Tally, *, quiet: bool) -> Iterator[Block]:
    options, count, workers = sources.options, len(sources.names), os.cpu_count() or 1
    sketches = image_sketches(sources.workspace, sources.features, sources.names, sources.turns)
    every = "exhaustive" in options.parts()  # alone takes long
    progress = Progress("pairs", count * (count - 1) // 2, "candidates", quiet=quiet or not every)

    def counted() -> Iterator[Scored]:
        for block, scores in scored(blocks, sketches, workers):
            tally.candidates += len(block)
            progress.advance(len(block))
            yield block, scores

    try:
        with threadpool_limits(1, "blas"):  # as in the matcher: small products, in threads
            if options.prune_num_images is None:
                least = options.prune_threshold
                if least is None:
                    least = _PROMISING if sources.turns == 1 else _PROMISING_TURNED
                yield from above(counted(), least)
            else:
                yield from best(count, counted(), options.prune_num_images)
    finally:
        progress.close()
