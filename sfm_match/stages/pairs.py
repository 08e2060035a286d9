"""`pairs.txt`: one pair a line, TAB between the names, names in order, lines as the strategy streams them."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs import Block, PairsError
from pairs.auto import choose
from pairs.exhaustive import exhaustive
from pairs.listed import listed
from pairs.sequential import sequential
from pairs.spatial import east_north_up, spatial
from pairs.union import union
from sfm_match.collection import Collection
from sfm_match.config import PairsOptions
from sfm_match.errors import NothingDone, UsageError
from sfm_match.progress import Clock, StageReport
from sfm_match.store.shard import fingerprint, replacing, sha256_of
from sfm_match.workspace import Workspace

_STANDING = "pairs written"  # entry of the workspace's record


def write_pairs(workspace: Workspace, collection: Collection, options: PairsOptions, *, overwrite: bool) -> StageReport:
    """Writes `pairs.txt`, unless it stands for these images and options.

    Raises:
        UsageError: the list names unknown images, or options differ from the standing pairs'.
        NothingDone: fewer than two images, or no pair.
    """
    clock = Clock()
    names = list(collection.usable)
    strategy, reason = _settle(workspace, collection, options, overwrite=overwrite)
    inputs = fingerprint([strategy, _facts(options), [(n, h.location) for n, h in collection.usable.items()]])
    detail = f"{strategy}: {reason}" if reason else strategy
    before = workspace.record().get(_STANDING)
    if before is not None and before["inputs"] == inputs and _is(workspace.pairs, before["sha256"]):
        return StageReport("pairs", "pairs", 0, before["count"], detail=detail, facts={"strategy": strategy})
    count = 0
    try:
        with replacing(workspace.pairs) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            for block in _all_blocks(strategy, collection, options):
                file.writelines(f"{names[i]}\t{names[j]}\n" for i, j in block.tolist())
                count += len(block)
            if not count:
                raise NothingDone(f"--strategy {strategy}: no pair among {len(names)} images")
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error
    workspace.note("pairs", _facts(options))
    workspace.note(_STANDING, {"inputs": inputs, "count": count, "sha256": sha256_of(workspace.pairs)})
    return StageReport("pairs", "pairs", count, seconds=clock.seconds, detail=detail, facts={"strategy": strategy})


def check_pairs(workspace: Workspace, collection: Collection, options: PairsOptions, *, overwrite: bool) -> None:
    """Raises what `write_pairs` would raise, without writing."""
    strategy, _ = _settle(workspace, collection, options, overwrite=overwrite)
    checked = {"list", "spatial"} & set(strategy.split("+"))  # the others take any names
    try:
        for part in checked:
            for _ in _blocks(part, collection, options):
                pass
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error


def _settle(workspace: Workspace, collection: Collection, options: PairsOptions, *, overwrite: bool) -> tuple[str, str]:
    """The strategy, and why, where it was chosen."""
    names = list(collection.usable)
    if len(names) < 2:
        raise NothingDone(f"{collection.folder}: {len(names)} usable image, a pair needs two")
    workspace.check("pairs", _facts(options), overwrite=overwrite)
    if options.strategy != "auto":
        return options.strategy, ""
    try:
        located = sum(header.location is not None for header in collection.usable.values())
        return choose(names, located / len(names))
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error


def _is(path: Path, digest: str) -> bool:
    return path.exists() and sha256_of(path) == digest


def _facts(options: PairsOptions) -> dict[str, object]:
    facts = options.identity()
    if options.match_list_path is not None:  # the list's content is what matters
        facts["match_list_path"] = sha256_of(options.match_list_path)
    return facts


def _all_blocks(strategy: str, collection: Collection, options: PairsOptions) -> Iterator[Block]:
    """Of one strategy, or of several joined by +."""
    parts = strategy.split("+")
    if "exhaustive" in parts:  # holds all the others
        parts = ["exhaustive"]
    streams = [_blocks(part, collection, options) for part in dict.fromkeys(parts)]
    return streams[0] if len(streams) == 1 else union(len(collection.usable), streams)


def _blocks(strategy: str, collection: Collection, options: PairsOptions) -> Iterator[Block]:
    names = list(collection.usable)
    if strategy == "spatial":
        return spatial(_positions(collection), options.max_num_neighbors, options.max_distance, options.ignore_z)
    if strategy == "exhaustive":
        return exhaustive(len(names))
    if strategy == "sequential":
        return sequential(names, options.overlap, options.quadratic_overlap)
    if options.match_list_path is None:  # options.validate() refuses this
        raise ValueError("the strategy `list` needs a file")
    return listed(options.match_list_path, names)


def _positions(collection: Collection) -> NDArray[np.float64]:
    """(N, 3) metres, NaN where the image has no GPS."""
    nowhere = (np.nan, np.nan, np.nan)
    located = [header.location or nowhere for header in collection.usable.values()]
    table = np.array([[np.nan if value is None else value for value in one] for one in located], np.float64)
    return east_north_up(*table.reshape(-1, 3).T)


def read_pairs(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(P, 2) indices into `names` of the pairs that stand.

    Raises:
        NothingDone: no pairs were written.
        UsageError: the file names images that are not in the collection.
    """
    if not path.exists():
        raise NothingDone(f"{path.parent}: no pairs yet; run `sfm-match pairs` first")
    index = {name: i for i, name in enumerate(names)}
    flat = array("i")  # 8 bytes a pair
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                first, second = line.rstrip("\n").split("\t")
                flat.extend((index[first], index[second]))
            except (ValueError, KeyError):
                hint = "not two images of this collection; run `sfm-match pairs` again"
                raise UsageError(f"{path}, line {number}: {hint}") from None
    pairs = np.sort(np.frombuffer(flat, np.int32).astype(np.int64).reshape(-1, 2), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)  # a file changed by hand may say things twice
    if not len(pairs):
        raise NothingDone(f"{path}: no pair in it; run `sfm-match pairs` again")
    return pairs
