"""Matches of every pair: a unit is a tile of pairs that share images, its result one file.

A tile joins two blocks of images; a block lies within one unit of features, so that a tile reads two files and each
image's descriptors once. Its name tells the blocks and a digest of what it holds: pairs that came later (a collection
that grew, another strategy) make new tiles beside the standing ones.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from exports.config import FAMILY
from sfm_match.block_matching import BlockMatcher
from sfm_match.collection import UNIT_SIZE, Collection
from sfm_match.config import MatchOptions
from sfm_match.errors import NothingDone
from sfm_match.extractor import TURNS, runtime_for
from sfm_match.lanes import Lanes
from sfm_match.matching.dual_softmax import match_turned
from sfm_match.models import match_threshold
from sfm_match.progress import Clock, Progress, StageReport
from sfm_match.runtime import choose
from sfm_match.stages.extract import FeatureSet, standing_features
from sfm_match.store.features import read_features, unit_path
from sfm_match.store.matches import Matches, Tile, read_tile, write_tile
from sfm_match.store.pairs import read_pairs
from sfm_match.store.shard import ShardError, fingerprint
from sfm_match.workspace import Workspace

ALGORITHM = 4  # raise it when the same features and options come to give other matches
_TILE_NAME = re.compile(r"\d{5,}-\d{5,}-[0-9a-f]{8}\.h5")
BLOCK = 32  # images; 2 x 32 x 4096 x 256 float32 are 268 MB, and a kill costs at most 1024 pairs


@dataclass(frozen=True)
class TilePlan:
    """Work of one tile."""

    path: Path
    images: dict[str, str]  # name -> signature of its file
    pairs: NDArray[np.int32]  # (P, 2) rows of `images`


@dataclass(frozen=True)
class MatchSet:
    """What is to match, and what stands of it."""

    fingerprint: str
    names: list[str]
    wanted: NDArray[np.int64]  # (P, 2) pairs of pairs.txt, places in `names`
    usable: NDArray[np.int64]  # (Q, 2) those of which both images have features
    open_pairs: NDArray[np.int64]  # (R, 2) those without matches
    tiles: set[Path]  # files that stand


def current_features(workspace: Workspace, collection: Collection) -> FeatureSet:
    """The features that the last `extract` made.

    Raises:
        NothingDone: there are none, or some units are still open.
    """
    facts = workspace.record().get("extract")
    if facts is None:
        raise NothingDone(f"{workspace.folder}: no features yet; run `sfm-match extract` first")
    features = standing_features(workspace, collection, fingerprint(facts))
    if features.open_units:
        missing = sum(map(len, features.open_units.values()))
        raise NothingDone(f"{workspace.folder}: {missing} images are not extracted; run `sfm-match extract` again")
    return features


def match_facts(options: MatchOptions, model: str) -> dict[str, Any]:
    """Everything that matches depend on, beside the features."""
    threshold = options.threshold if options.threshold is not None else match_threshold(model)
    return {**options.identity(), "threshold": threshold, "algorithm": ALGORITHM}


def standing_matches(
    workspace: Workspace, collection: Collection, features: FeatureSet, facts: dict[str, Any]
) -> MatchSet:
    """Compares `pairs.txt` with the tiles that stand."""
    expected = fingerprint([facts, features.fingerprint])
    names = list(collection.records)
    wanted = read_pairs(workspace.pairs, names)
    has_features = np.array([name in features.counts for name in names])
    usable = wanted[has_features[wanted].all(axis=1)]
    rank = {name: i for i, name in enumerate(names)}
    codes = {path: tile.pair_codes(rank, features.signatures) for path, tile in standing_tiles(workspace, expected)}
    standing = np.concatenate([np.empty(0, np.int64), *codes.values()])
    open_pairs = usable[~np.isin(usable @ (len(names), 1), standing)]
    return MatchSet(expected, names, wanted, usable, open_pairs, set(codes))


def standing_tiles(workspace: Workspace, expected: str, *, head_only: bool = True) -> Iterator[tuple[Path, Tile]]:
    """The readable tiles of this fingerprint."""
    for path in sorted(workspace.matches.glob("*.h5")):
        try:
            tile = read_tile(path, head_only=head_only)
        except ShardError:
            continue
        if tile.fingerprint == expected:
            yield path, tile


def iter_matches(workspace: Workspace, state: MatchSet, features: FeatureSet) -> Iterator[tuple[str, str, Matches]]:
    """The matches of the pairs of `pairs.txt` that are matched, tile by tile: both names, and what was found."""
    rank = {name: i for i, name in enumerate(state.names)}
    wanted = np.unique(state.wanted @ (len(rank), 1))
    for _, tile in standing_tiles(workspace, state.fingerprint, head_only=False):
        codes = tile.pair_codes(rank, features.signatures)
        # not np.isin, which would sort all pairs again for each tile
        places = np.searchsorted(wanted, codes).clip(max=len(wanted) - 1)
        names = list(tile.images)
        for number in np.flatnonzero(wanted[places] == codes):
            i, j = tile.pairs[number]
            yield names[i], names[j], tile.matches[number]


def match_pairs(
    workspace: Workspace, collection: Collection, options: MatchOptions, *, overwrite: bool, quiet: bool = False
) -> StageReport:
    """Matches the pairs of `pairs.txt` that are not matched yet. Pairs of images without features are passed over."""
    clock = Clock()
    features = current_features(workspace, collection)
    facts = match_facts(options, workspace.record()["extract"]["model"])
    workspace.check("match", facts, overwrite=overwrite)
    with clock.on("plan"):
        state = standing_matches(workspace, collection, features, facts)
        if not len(state.usable):
            raise NothingDone(f"{workspace.pairs}: no pair of images that both have features")
        workspace.note("match", facts)
        _remove_useless(workspace, state.tiles)
        tiles = list(_plan_tiles(workspace.matches, state.fingerprint, state.names, features, state.open_pairs))
    progress = Progress("match", len(state.open_pairs), "pairs", quiet=quiet)
    found, engine = 0, ""
    try:
        if tiles:
            with clock.on("load"):
                matcher, lanes, engine = _matcher(workspace, features, options, facts["threshold"], progress)

            def matched(plan: TilePlan) -> list[Matches]:
                mine = clock if lanes.count == 1 else Clock()  # the clock is this thread's
                with mine.on("read"):
                    descriptors = _read_descriptors(workspace, features, plan)
                with mine.on("match"):
                    return matcher.match(descriptors, plan.pairs)

            for plan, matches in lanes.each(tiles, matched, lambda: clock.on("match")):
                with clock.on("write"):
                    write_tile(plan.path, Tile(state.fingerprint, plan.images, plan.pairs, matches))
                found += sum(len(m.indices) for m in matches)
            engine = "; ".join(filter(None, (engine, matcher.note)))  # known only now
    finally:
        progress.close()
    passed_over = len(state.wanted) - len(state.usable)
    notes = [engine, f"{passed_over:,} pairs of images without features passed over" if passed_over else ""]
    return StageReport(
        "match",
        "pairs",
        done=len(state.open_pairs),
        standing=len(state.usable) - len(state.open_pairs),
        seconds=clock.seconds,
        spent=clock.spent,
        detail="; ".join(filter(None, notes)),
        facts={"matches": found, "passed_over": passed_over},
    )


class _Matcher(Protocol):
    """Matches the pairs of a tile."""

    @property
    def note(self) -> str:
        """What it chose to run, for the report; empty where there was no choice."""

    def match(self, descriptors: list[NDArray[np.float16]], pairs: NDArray[np.int32]) -> list[Matches]:
        """(N, D) of each image, (P, 2) places among them."""


@dataclass(frozen=True)
class _OnHost:
    """In threads, with numpy."""

    turns: int  # in which images were described
    threshold: float
    inverse_temperature: float
    workers: int
    progress: Progress
    note: ClassVar[str] = ""

    def match(self, descriptors: list[NDArray[np.float16]], pairs: NDArray[np.int32]) -> list[Matches]:
        single = [one.astype(np.float32) for one in descriptors]

        def one(pair: NDArray[np.int32]) -> Matches:
            return match_turned(single[pair[0]], single[pair[1]], self.turns, self.threshold, self.inverse_temperature)

        matches = []
        # one BLAS thread a pair and pairs in parallel: blocks this small lose to barriers
        with threadpool_limits(1, "blas"):
            pool = ThreadPoolExecutor(self.workers)
            try:
                for result in pool.map(one, pairs):
                    matches.append(result)
                    self.progress.advance(1)
            finally:
                pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the tile's other pairs
        return matches


def _matcher(
    workspace: Workspace, features: FeatureSet, options: MatchOptions, threshold: float, progress: Progress
) -> tuple[_Matcher, Lanes, str]:
    """A matcher, its lanes, and in words what it is."""
    extracted = workspace.record()["extract"]
    turns = TURNS if extracted.get("turns") else 1
    temperature, workers = options.inverse_temperature, options.workers or os.cpu_count() or 1
    on_host = _OnHost(turns, threshold, temperature, workers, progress)
    choice = choose(options.device)
    if choice.device == "cpu":
        return on_host, Lanes(1), ""
    if turns > 1:
        return on_host, Lanes(1), "matched on the CPU: quarter turns are not compared on a GPU"
    runtime, _ = runtime_for(choice.name)
    most, dimension = max(features.counts.values()), FAMILY[extracted["model"]].descriptor.prototypes
    on_device = BlockMatcher(
        runtime,
        threshold,
        temperature,
        images=2 * BLOCK,
        keypoints=most,
        dimension=dimension,
        advance=progress.advance,
    )
    return on_device, runtime.lanes, f"{runtime.provider}{choice.note}"


def _remove_useless(workspace: Workspace, useful: set[Path]) -> None:
    """Deletes tiles of other options, and damaged ones; files with other names are not ours."""
    for path in workspace.matches.glob("*.h5"):
        if path not in useful and _TILE_NAME.fullmatch(path.name):
            path.unlink()


def _plan_tiles(
    folder: Path, expected: str, names: list[str], features: FeatureSet, pairs: NDArray[np.int64]
) -> Iterator[TilePlan]:
    """Groups pairs by the blocks of their images."""
    if not len(pairs):
        return
    block = _blocks(names, features)
    joined = np.sort(block[pairs], axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], joined[:, 1], joined[:, 0]))
    pairs, joined = pairs[order], joined[order]
    cuts = np.flatnonzero((joined[1:] != joined[:-1]).any(axis=1)) + 1
    for part, key in zip(np.split(pairs, cuts), joined[np.concatenate(([0], cuts))], strict=True):
        used, rows = np.unique(part, return_inverse=True)
        images = {names[i]: features.signatures[names[i]] for i in used}
        local = rows.reshape(-1, 2).astype(np.int32)
        digest = fingerprint([expected, images, local.tolist()])[:8]
        yield TilePlan(folder / f"{key[0]:05d}-{key[1]:05d}-{digest}.h5", images, local)


def _blocks(names: list[str], features: FeatureSet) -> NDArray[np.int64]:
    """The block of each name, -1 without features; blocks do not cross units."""
    per_unit = UNIT_SIZE // BLOCK
    seen: dict[int, int] = {}
    block = np.full(len(names), -1, np.int64)
    for i, name in enumerate(names):
        unit = features.units.get(name)
        if unit is not None:
            place = seen.get(unit, 0)
            seen[unit] = place + 1
            block[i] = unit * per_unit + place // BLOCK
    return block


def _read_descriptors(workspace: Workspace, features: FeatureSet, plan: TilePlan) -> list[NDArray[np.float16]]:
    held = {}
    for unit, names in features.by_unit(plan.images).items():
        for name, stored in read_features(unit_path(workspace.features, unit), names).items():
            held[name] = stored.descriptors
    return [held[name] for name in plan.images]
