"""Matches of every pair: a unit is a block of pairs that share images, its result one file.

A file's name tells its blocks of images and a digest of what it holds: pairs that came later (a collection that grew,
another strategy) make new files beside those that are there. `pair_blocks` plans them, `match_blocks` matches them.
"""

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.features.extractor import ROTATIONS
from sfm_match.job.executor import done_units, threads_each
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import FROM, Workspace
from sfm_match.matching.matcher import MatchSettings
from sfm_match.models import MatchDefaults, lightglue, match_defaults, recorded_match_defaults
from sfm_match.options.stages import LIGHTGLUE, MatchOptions
from sfm_match.options.workers import Part
from sfm_match.runtime.devices import devices_of
from sfm_match.stages import match_blocks as blocks
from sfm_match.stages.base import Job, ray_pool
from sfm_match.stages.match_blocks import BlockPlan, BlockReceipt, MatchContext, match_blocks
from sfm_match.stages.pair_blocks import plan_blocks
from sfm_match.stages.parts import agreed_pairs, forget_agreed_pairs, told
from sfm_match.stages.state import FeatureSet, MatchSet, keep_matches, move_aside, scan_matches
from sfm_match.store.matches import BLOCK_FILE
from sfm_match.store.shard import sha256_of

ALGORITHM = 4  # raise it when the same features and options come to give other matches


def match_inputs(options: MatchOptions, defaults: MatchDefaults) -> dict[str, Any]:
    """Everything that matches depend on, beside the features.

    Args:
        options: of matching.
        defaults: of the features' model.

    Raises:
        UsageError: no LightGlue was published for the model.
        NothingDone: its weights are not here.
    """
    inputs: dict[str, Any] = {**options.inputs(), "algorithm": ALGORITHM}
    learned = options.matcher == LIGHTGLUE
    if options.match_threshold is None:
        inputs["match_threshold"] = lightglue.THRESHOLD if learned else defaults.threshold
    if learned:
        inputs["matcher_weights"] = sha256_of(lightglue.chosen_weights(options, defaults.lightglue))
    elif options.inverse_temperature is None:
        inputs["inverse_temperature"] = defaults.inverse_temperature
    return inputs


def _check_rotations(options: MatchOptions, rotations: int) -> None:
    """Raises UsageError where images were described in several, and the matcher takes one."""
    if rotations > 1 and options.matcher == LIGHTGLUE:
        raise UsageError("--matcher lightglue: not with --turns; accepted there is dual-softmax")


def check(job: Job) -> None:
    """Raises UsageError where matches of other options are there."""
    _check_rotations(job.options.match, ROTATIONS if job.options.extract.turns else 1)
    inputs = match_inputs(job.options.match, match_defaults(job.options.extract.model))
    job.workspace.check("match", inputs, overwrite=job.overwrite)


def status(job: Job) -> int:
    """Pairs that are matched, of those of which both images have features."""
    inputs = job.workspace.read_record().get("match")
    if inputs is None or job.found_features is None:
        return 0
    try:
        job.found_matches = scan_matches(job.workspace, job.collection, job.found_features, inputs)
    except SfmMatchError:  # pairs.txt is gone, or of other images: it will be made anew
        return 0
    return len(job.found_matches.pairs) - len(job.found_matches.open_pairs)


def run(job: Job) -> StageReport:
    """Matches the pairs of `pairs.txt` that are not matched yet. Pairs of images without features are passed over.

    Raises:
        UsageError: options that differ from those of the matches that are there, or a device that is not here.
        NothingDone: no features, no pairs, or no pair of which both images have features.
    """
    workspace, features, options, clock = job.workspace, job.features, job.options.match, Clock()
    _check_rotations(options, features.rotations)
    if FROM in features.inputs:
        source = features.inputs[FROM]
        raise UsageError(
            f"{workspace.folder}: its features came from {source}; bring their matches with `convert --from {source}`"
        )
    defaults = recorded_match_defaults(features.inputs)
    inputs = match_inputs(options, defaults)
    workspace.check("match", inputs, overwrite=job.overwrite)
    workspace.tell_if_changed(workspace.pairs)
    with clock.on("plan"):
        before, total, plans = _planned(job, features, inputs)
    progress = job.progress("match", total, "pairs")
    receipts: list[BlockReceipt] = []
    written: list[Path] = []

    def noted() -> Iterator[BlockPlan]:
        for plan in plans:
            written.append(plan.path)
            yield plan

    devices = [options.device]
    try:
        if total:
            pool = ray_pool(options.ray, options.device)
            devices = devices_of(options.device, options.devices) if pool is None else pool.devices
            do = partial(match_blocks, _context(job, inputs, before.fingerprint, workers=len(devices)))
            receipts += done_units(devices, do, noted(), workspace.matches, progress.advance, clock, pool)
    finally:
        progress.close()
    if options.part is None:
        job.found_matches = before.with_blocks(written)
        keep_matches(workspace, features, job.found_matches)
    else:
        job.found_matches = scan_matches(workspace, job.collection, features, inputs)
    workers = min(len(devices), len(written))
    engines = [f"{workers} workers" if workers > 1 else "", *dict.fromkeys(receipt.engine for receipt in receipts)]
    passed_over = before.passed_over
    left_out = f"{passed_over:,} pairs of images without features passed over" if passed_over else ""
    parts = told(options.part, len(job.found_matches.open_pairs), "pairs") if options.part is not None else ""
    notes = [", ".join(filter(None, engines)), left_out, parts]
    return StageReport(
        "match",
        "pairs",
        done=total,
        cached=len(before.pairs) - len(before.open_pairs),
        seconds=clock.seconds,
        spent=clock.spent,
        detail="; ".join(filter(None, notes)),
        facts={"matches": sum(receipt.matches for receipt in receipts), "passed_over": passed_over},
    )


def _planned(job: Job, features: FeatureSet, inputs: dict[str, Any]) -> tuple[MatchSet, int, Iterable[BlockPlan]]:
    """What is matched; how many pairs are to be, and their blocks: of a part, its own.

    The record and the folder are made ready.
    """
    workspace, part = job.workspace, job.options.match.part
    with workspace.one_part_at_a_time():
        before = scan_matches(workspace, job.collection, features, inputs)
        if not len(before.pairs):
            raise NothingDone(f"{workspace.pairs}: no pair of images that both have features")
        workspace.write_record("match", inputs)
        move_aside(before.damaged)
        if part is None:
            remove_useless(workspace, before.files)
            forget_agreed_pairs(workspace)
        pairs = before.open_pairs if part is None else agreed_pairs(workspace, features, before)
    plans = plan_blocks(workspace.matches, before.fingerprint, before.names, features, pairs)
    if part is None:
        return before, len(pairs), plans
    mine = [plan for plan in Part.parse(part).share(list(plans)) if plan.path.name not in before.files]
    return before, sum(len(plan.pairs) for plan in mine), mine


def _context(job: Job, inputs: Mapping[str, Any], expected: str, workers: int) -> MatchContext:
    """What the workers need to know; `inputs` are those of the fingerprint `expected`."""
    features, options = job.features, job.options.match
    if options.ray is None:  # an actor sees by itself how many processors it has
        options = dataclasses.replace(options, match_workers=threads_each(options.match_workers, workers))
    settings = match_settings(options, inputs, features, max(features.counts.values()))
    headers = features.headers(job.collection)
    return MatchContext(features.folder, features.units, headers, expected, options.matcher, settings, workers)


def match_settings(
    options: MatchOptions, inputs: Mapping[str, Any], features: FeatureSet, keypoints: int
) -> MatchSettings:
    """What a matcher is made for.

    Args:
        options: how to match.
        inputs: as `match_inputs` gives them, or as they are on record.
        features: of the images of the workspace.
        keypoints: of an image, at most.
    """
    defaults = recorded_match_defaults(features.inputs)
    return MatchSettings(
        options,
        inputs["match_threshold"],
        inputs.get("inverse_temperature", defaults.inverse_temperature),
        features.rotations,
        keypoints,
        defaults.dimension,
        blocks.BLOCK,
        defaults.lightglue,
    )


def remove_useless(workspace: Workspace, useful: Container[str]) -> None:
    """Deletes files of other options; files with other names are not ours."""
    for path in workspace.matches.glob("*.h5"):
        if path.name not in useful and BLOCK_FILE.fullmatch(path.name):
            path.unlink()
