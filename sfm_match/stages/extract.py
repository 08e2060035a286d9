"""Features of every image: a unit is up to 64 images, its result one file."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial

from sfm_match.errors import NothingDone
from sfm_match.features.extractor import FeatureModel, devices_for, extractor_of
from sfm_match.features.tiles import buckets_of, geometry_of
from sfm_match.images.collection import Collection
from sfm_match.images.decoders import decoder_inputs, decoder_note
from sfm_match.images.loader import Item
from sfm_match.images.panoramas import is_panorama
from sfm_match.images.reasons import write_failed
from sfm_match.job.executor import done_units, threads_each
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import made_by
from sfm_match.options.stages import AUTO, ExtractOptions
from sfm_match.options.workers import Part
from sfm_match.stages.base import Job, ray_pool
from sfm_match.stages.extract_units import (
    ExtractContext,
    Unit,
    UnitReceipt,
    batches_of,
    extract_units,
    loader_for,
    work_of,
)
from sfm_match.stages.parts import features_of_all_parts, told
from sfm_match.stages.state import FeatureSet, keep_features, move_aside, scan_features, with_units

ALGORITHM = 1  # raise it when the same image and options come to give other features


def feature_inputs(options: ExtractOptions, model: FeatureModel) -> dict[str, object]:
    """Everything that features depend on, beside the image.

    Raises:
        UsageError: the decoder is not installed.
    """
    used = extractor_of(options.model).inputs(model, options)
    return {**options.inputs(), **decoder_inputs(options.decoder), **used, "algorithm": ALGORITHM}


def check(job: Job) -> None:
    """Raises UsageError where features of other options are there, or the model, device or decoder is not."""
    options = job.options.extract
    job.workspace.check(
        "extract", feature_inputs(options, extractor_of(options.model).chosen_model(options)), overwrite=job.overwrite
    )


def status(job: Job) -> int:
    """Images that have features."""
    return len(_before(job, job.workspace.read_record().get("extract", {})).counts)


def run(job: Job) -> StageReport:
    """Extracts what is not up to date.

    Raises:
        UsageError: unknown model, device or decoder, or options that differ from those of the features that are there.
        NothingDone: not one image of the collection could be used.
    """
    workspace, collection, options, clock = job.workspace, job.collection, job.options.extract, Clock()
    with clock.on("load"):
        pool = ray_pool(options.ray, options.device)
        devices = devices_for(options) if pool is None else pool.devices
        on_first = dataclasses.replace(options, device=devices[0], devices=None)
        model = extractor_of(options.model).chosen_model(on_first)
    inputs = feature_inputs(options, model)
    workspace.check("extract", inputs, overwrite=job.overwrite)
    collection.save(workspace)  # not before the check: a refused command changes nothing
    workspace.write_record("extract", inputs)
    before = _before(job, inputs)
    part = Part.parse(options.part) if options.part is not None else None
    units = list(collection.units())
    mine = frozenset(units if part is None else part.share(units))
    move_aside(before.damaged)
    due = {**dict.fromkeys(before.open_units), **dict.fromkeys(before.retry_units)}
    work = collection.units().only(number for number in due if number in mine)
    after, detail = before, ""
    if work:
        workspace.write_record("made by", made_by())
        geometries = (geometry_of(header, options, model.divisor) for header in collection.usable.values())
        # an actor of a cluster sees by itself how many processors it has
        workers = threads_each(options.workers, len(devices)) if pool is None else options.workers
        context = ExtractContext(
            collection.folder,
            collection.masks,
            workspace.features,
            before.fingerprint,
            dataclasses.replace(options, workers=workers),
            buckets_of(geometries, options, model.divisor),
        )
        open_units = _units(collection, options, model.divisor, work)
        # made once more: all at once they would not be small
        all_work = work_of(item for unit in _units(collection, options, model.divisor, work) for item in unit.items)
        progress = job.progress("extract", sum(map(len, work.values())), "images", all_work)
        try:
            do = partial(extract_units, context)
            fewer = devices[: len(work)]
            receipts = list(done_units(fewer, do, open_units, workspace.features, progress.advance, clock, pool))
        finally:
            progress.close()
        detail = _detail(receipts, min(len(devices), len(work))) + decoder_note(options.decoder)
        after = with_units(before, collection, ((receipt.number, receipt.head) for receipt in receipts))
    panoramas = sum(is_panorama(*header.upright_size) for header in collection.usable.values())
    if panoramas:
        hint = (
            f"{panoramas:,} images have the shape of 360-degree panoramas: `sfm-match cubemap` makes pictures of them"
        )
        detail = f"{detail}; {hint}" if detail else hint
    if part is None:
        write_failed(workspace, after.failed)
        keep_features(workspace, collection, after)
    else:
        after = features_of_all_parts(workspace, collection, inputs)
        said = told(str(part), sum(map(len, after.open_units.values())), "images")
        detail = f"{detail}; {said}" if detail else said
    job.found_features = after
    if not after.counts and not after.open_units:
        first = ", ".join(f"{name}: {why}" for name, why in list(after.failed.items())[:3])
        raise NothingDone(f"{collection.folder}: no readable image among {len(collection.records)} ({first})")
    return StageReport(
        "extract",
        "images",
        done=sum(name in after.counts for names in work.values() for name in names),
        cached=sum(unit not in work and unit in mine for unit in before.units.values()),
        failed=len(after.failed),
        seconds=clock.seconds,
        spent=clock.spent,
        detail=detail,
        facts={"keypoints": sum(after.counts.values()), "total": len(after.counts)},
    )


def _before(job: Job, inputs: Mapping[str, object]) -> FeatureSet:
    """What an earlier run left; the heads are read once in a job."""
    if job.found_features is None or job.found_features.inputs != inputs:
        job.found_features = scan_features(job.workspace, job.collection, inputs)
    return job.found_features


def _units(
    collection: Collection, options: ExtractOptions, divisor: int, wanted: Mapping[int, list[str]]
) -> Iterator[Unit]:
    """Units with all that their extraction asks for."""
    headers = collection.usable
    for number, names in wanted.items():
        items = tuple(Item(name, geometry_of(headers[name], options, divisor)) for name in names)
        places = collection.units().places(number).tolist()
        signatures = [collection.signatures[place] for place in places]
        yield Unit(number, items, dict(zip(names, signatures, strict=True)))


def _detail(receipts: list[UnitReceipt], workers: int) -> str:
    """What ran."""
    redone = sum(receipt.redone for receipt in receipts)
    notes = [f"{workers} workers" if workers > 1 else "", *dict.fromkeys(receipt.engine for receipt in receipts)]
    return ", ".join(filter(None, [*notes, f"{redone} images again in fp32" if redone else ""]))


def load_only(job: Job) -> StageReport:
    """`--dummy-network`: reads, decodes and resizes every image as `run` does, and does nothing with it.

    How many images a second this gives is what the fastest network could not exceed. Nothing is written.
    """
    collection, options, clock = job.collection, job.options.extract, Clock()
    divisor = extractor_of(options.model).chosen_model(options).divisor
    batch = 8 if options.batch == AUTO else int(options.batch)
    batch = 1 if options.tile is not None else batch
    units = _units(collection, options, divisor, collection.units())
    batches = (cut for unit in units for cut in batches_of(unit.items, batch))
    progress = job.progress("load", len(collection.usable), "images")
    loaded, failed = 0, 0
    for read in loader_for(collection.folder, collection.masks, options, batches, batch):
        loaded, failed = loaded + len(read.items), failed + len(read.failed)
        progress.advance(len(read.items) + len(read.failed))
    progress.close()
    return StageReport(
        "load",
        "images",
        done=loaded,
        failed=failed,
        seconds=clock.seconds,
        detail=f"no network ran{decoder_note(options.decoder)}",
    )
