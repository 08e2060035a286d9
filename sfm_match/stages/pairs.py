"""Writes `pairs.txt`, and adds to it in second rounds.

A second round starts from verified pairs: what it proposes is added to the list that is there, and kept in
`pairs-added.txt`, so that a list that is made anew, because images came, has it, too.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pairs import Block, PairsError
from pairs.auto import choose
from pairs.graph import Graph
from pairs.union import union
from sfm_match.colmap.model_io import digests
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.images.collection import Collection
from sfm_match.job.progress import Clock, StageReport
from sfm_match.options.base import AUTO
from sfm_match.options.pairs import PairsOptions
from sfm_match.stages.base import Job
from sfm_match.stages.image_summaries import ALGORITHM
from sfm_match.stages.strategies import Sources, Tally, all_pairs
from sfm_match.store.pairs import read_known_pairs, read_pair_table, write_pairs_file
from sfm_match.store.shard import fingerprint, sha256_of

_WRITTEN = "pairs written"  # entry of the workspace's record: `Workspace.note_written` makes it
_ADDED = "pairs added"  # entry of the last second round


def check(job: Job) -> None:
    """Raises what `run` would raise and can be known before images are extracted."""
    options = job.options.pairs
    if job.found_features is not None or len(job.collection.usable) < 2:  # known already, or said by the first stage
        return
    job.workspace.check("pairs", _inputs_of(options), overwrite=job.overwrite)
    sources = Sources(job, settled(job.collection, options)[0])
    try:
        for strategy in sources.strategies():
            sources.check(strategy)
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error


def status(job: Job) -> int:
    """Pairs of the list, where it is one of this collection."""
    try:
        return len(read_pair_table(job.workspace.pairs, job.collection.names))
    except SfmMatchError:
        return 0


def run(job: Job) -> StageReport:
    """Writes `pairs.txt`, unless it is up to date with these images and options; a second round adds to it.

    Raises:
        UsageError: a list names unknown images, or options differ from those of the pairs that are there.
        NothingDone: fewer than two images, no pair, or something that a strategy starts from is not there yet.
    """
    workspace, options = job.workspace, job.options.pairs
    if options.second_round:
        return _add_pairs(job)
    clock = Clock()
    recorded = _inputs_of(options)
    kept = workspace.read_record().get("pairs") == recorded  # else the pairs of second rounds go with the old list
    chosen, reason = settled(job.collection, options)
    workspace.check("pairs", recorded, overwrite=job.overwrite)
    sources = Sources(job, chosen)
    strategy = chosen.strategy
    detail = f"{strategy}: {reason}" if reason else strategy
    inputs = fingerprint(_inputs(sources, options))
    before = workspace.read_record().get(_WRITTEN)
    if before is not None and before.get("inputs") == inputs and _is(workspace.pairs, before.get("sha256")):
        return StageReport("pairs", "pairs", 0, before.get("count", 0), detail=detail, facts={"strategy": strategy})
    if not kept:
        workspace.added_pairs.unlink(missing_ok=True)
    tally = Tally()
    try:
        count = write_pairs_file(workspace.pairs, sources.names, _with_added(all_pairs(sources, tally), sources))
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error
    except NothingDone as error:
        raise NothingDone(f"--strategy {strategy}: {error}") from error
    workspace.write_record("pairs", recorded)
    workspace.note_written(workspace.pairs, inputs=inputs, count=count)
    facts: dict[str, Any] = {"strategy": strategy}
    if chosen.prune:
        facts["candidates"] = tally.candidates
        detail += f"; pruned: {count:,} of {tally.candidates:,} pairs kept"
    return StageReport("pairs", "pairs", count, seconds=clock.seconds, detail=detail, facts=facts)


def settled(collection: Collection, options: PairsOptions) -> tuple[PairsOptions, str]:
    """The options without `auto`, and why, where it was chosen.

    Raises:
        NothingDone: fewer than two images.
    """
    names = list(collection.usable)
    if len(names) < 2:
        raise NothingDone(f"{collection.folder}: {len(names)} usable image, a pair needs two")
    if options.strategy != AUTO:
        return options, ""
    located = sum(header.location is not None for header in collection.usable.values())
    choice = choose(names, located / len(names), len(collection.video_frames) / len(names))
    values: dict[str, Any] = {"strategy": choice.strategy, **choice.options}
    return dataclasses.replace(options, **values), choice.reason


def _add_pairs(job: Job) -> StageReport:
    """A second round: pairs beside those that are there."""
    clock, workspace, options = Clock(), job.workspace, job.options.pairs
    sources, tally = Sources(job, options), Tally()
    database = sources.verified_from
    listed = sources.tried
    graph = Graph(sources.count, sources.verified)
    detail = (
        f"{options.strategy}: {graph.edge_count:,} verified pairs, {graph.components().max() + 1:,} components, "
        f"{len(graph.bridges()):,} bridges"
    )
    inputs = fingerprint([*_inputs(sources, options), database])
    facts = {"strategy": options.strategy}
    if workspace.read_record().get(_ADDED, {}).get("inputs") == inputs:
        return StageReport("pairs", "pairs", 0, len(listed), detail=detail, facts=facts)
    try:
        proposed = np.concatenate([np.empty((0, 2), np.int32), *all_pairs(sources, tally)])
    except PairsError as error:
        raise UsageError(f"pairs: {error}") from error
    fresh = proposed[~np.isin(_codes(proposed, sources), _codes(listed, sources))]
    if len(fresh):
        _append(sources, listed, fresh)
    workspace.write_record(_ADDED, {"inputs": inputs})
    return StageReport("pairs", "pairs", len(fresh), len(listed), seconds=clock.seconds, detail=detail, facts=facts)


def _append(sources: Sources, listed: NDArray[np.int64], fresh: Block) -> None:
    """Brings pairs into `pairs.txt`, and into the file from which they come back when it is made anew."""
    workspace, names = sources.job.workspace, sources.names
    before = workspace.read_record().get(_WRITTEN, {})
    ours = _is(workspace.pairs, before.get("sha256"))  # not changed by hand
    workspace.tell_if_changed(workspace.added_pairs)
    earlier = read_known_pairs(workspace.added_pairs, names)
    write_pairs_file(workspace.added_pairs, names, [earlier.astype(np.int32), fresh])
    workspace.note_written(workspace.added_pairs)
    count = write_pairs_file(workspace.pairs, names, [listed.astype(np.int32), fresh])
    if ours:
        workspace.note_written(workspace.pairs, **{**before, "count": count})


def _with_added(blocks: Iterator[Block], sources: Sources) -> Iterator[Block]:
    """A list that is made anew, and the pairs of second rounds."""
    sources.job.workspace.tell_if_changed(sources.job.workspace.added_pairs)
    added = read_known_pairs(sources.job.workspace.added_pairs, sources.names).astype(np.int32)
    whole = "exhaustive" in sources.options.parts() and not sources.options.prune
    return union(len(sources.names), [blocks, iter([added])]) if len(added) and not whole else blocks


def _codes(pairs: NDArray[np.integer], sources: Sources) -> NDArray[np.int64]:
    return np.asarray(pairs.astype(np.int64) @ (len(sources.names), 1), np.int64)


def _inputs(sources: Sources, options: PairsOptions) -> list[Any]:
    """Everything that a list depends on."""
    chosen = sources.options
    located = ((name, header.location) for name, header in sources.job.collection.usable.items())
    inputs: list[Any] = [chosen.strategy, _inputs_of(options), located]
    if dataclasses.replace(options, strategy=chosen.strategy) != chosen:  # what auto chose beside the strategy
        inputs.append(chosen.inputs())
    if sources.needs_features:
        features = sources.features
        inputs.append([features.fingerprint, features.signed(), ALGORITHM])
    return inputs


def _inputs_of(options: PairsOptions) -> dict[str, Any]:
    """The options, and of files their content: that is what matters."""
    inputs = options.inputs()
    for name in ("match_list_path", "query_list", "db_list"):
        path: Path | None = getattr(options, name)
        if path is not None:
            inputs[name] = sha256_of(path)
    if options.reference_model is not None:
        inputs["reference_model"] = digests(options.reference_model)
    return inputs


def _is(path: Path, digest: str | None) -> bool:
    return digest is not None and path.is_file() and sha256_of(path) == digest
