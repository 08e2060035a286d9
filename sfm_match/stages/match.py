"""Matches of every pair: a unit is a tile of pairs that share images, its result one file.

A tile's name tells its blocks of images and a digest of what it holds: pairs that came later (a collection that grew,
another strategy) make new tiles beside the standing ones. `tiles` plans them, `match_blocks` matches them.
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.config import FAMILY
from sfm_match.errors import NothingDone
from sfm_match.features.extractor import TURNS
from sfm_match.images.collection import Collection
from sfm_match.job.executor import done_units, threads_each
from sfm_match.job.progress import Clock, Progress, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.models import match_threshold
from sfm_match.options.stages import MatchOptions
from sfm_match.runtime.devices import devices_of
from sfm_match.stages.extract import FeatureSet, standing_features
from sfm_match.stages.match_blocks import MatchContext, TileReceipt, match_tiles
from sfm_match.stages.tiles import plan_tiles
from sfm_match.store.matches import Matches, Tile, read_tile
from sfm_match.store.pairs import read_pairs
from sfm_match.store.shard import ShardError, fingerprint

ALGORITHM = 4  # raise it when the same features and options come to give other matches
_TILE_NAME = re.compile(r"\d{5,}-\d{5,}-[0-9a-f]{8}\.h5")


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
        tiles = list(plan_tiles(workspace.matches, state.fingerprint, state.names, features, state.open_pairs))
    progress = Progress("match", len(state.open_pairs), "pairs", quiet=quiet)
    receipts: list[TileReceipt] = []
    devices = [options.device]
    try:
        if tiles:
            devices = devices_of(options.device, options.devices)
            context = _context(
                workspace, features, options, facts["threshold"], state.fingerprint, workers=len(devices)
            )
            receipts += done_units(
                devices, partial(match_tiles, context), tiles, workspace.matches, progress.advance, clock
            )
    finally:
        progress.close()
    workers = min(len(devices), len(tiles))
    engines = [f"{workers} workers" if workers > 1 else "", *dict.fromkeys(receipt.engine for receipt in receipts)]
    passed_over = len(state.wanted) - len(state.usable)
    left_out = f"{passed_over:,} pairs of images without features passed over" if passed_over else ""
    notes = [", ".join(filter(None, engines)), left_out]
    return StageReport(
        "match",
        "pairs",
        done=len(state.open_pairs),
        standing=len(state.usable) - len(state.open_pairs),
        seconds=clock.seconds,
        spent=clock.spent,
        detail="; ".join(filter(None, notes)),
        facts={"matches": sum(receipt.matches for receipt in receipts), "passed_over": passed_over},
    )


def _context(
    workspace: Workspace, features: FeatureSet, options: MatchOptions, threshold: float, expected: str, workers: int
) -> MatchContext:
    """What the workers need to know."""
    extracted = workspace.record()["extract"]
    return MatchContext(
        workspace.features,
        features.units,
        expected,
        dataclasses.replace(options, workers=threads_each(options.workers, workers)),
        threshold,
        TURNS if extracted.get("turns") else 1,
        max(features.counts.values()),
        FAMILY[extracted["model"]].descriptor.prototypes,
        workers,
    )


def _remove_useless(workspace: Workspace, useful: set[Path]) -> None:
    """Deletes tiles of other options, and damaged ones; files with other names are not ours."""
    for path in workspace.matches.glob("*.h5"):
        if path not in useful and _TILE_NAME.fullmatch(path.name):
            path.unlink()
