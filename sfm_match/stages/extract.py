"""Features of every image: a unit is up to 64 images, its result one file."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from sfm_match.errors import NothingDone
from sfm_match.features.extractor import chosen_model, devices_for
from sfm_match.images.collection import Collection, write_failed
from sfm_match.images.decoders import decoder_facts, decoder_note
from sfm_match.images.loader import Item
from sfm_match.job.executor import done_units, threads_each
from sfm_match.job.progress import Clock, Progress, StageReport
from sfm_match.job.workspace import Workspace, made_by
from sfm_match.models import Model
from sfm_match.options.stages import AUTO, ExtractOptions
from sfm_match.stages.extract_units import (
    ExtractContext,
    Unit,
    UnitReceipt,
    batches_of,
    extract_units,
    loader_for,
)
from sfm_match.store.features import read_index, unit_path
from sfm_match.store.shard import ShardError, fingerprint

ALGORITHM = 1  # raise it when the same image and options come to give other features


@dataclass(frozen=True)
class FeatureSet:
    """What stands in `features/` for the collection: the images that have features, and why the others have not."""

    fingerprint: str
    counts: dict[str, int]  # keypoints of each image
    units: dict[str, int]  # image -> unit that holds its features
    signatures: dict[str, str]  # of the files that have features
    failed: dict[str, str]
    open_units: dict[int, list[str]]  # units without a file
    retry_units: dict[int, list[str]]  # units with an image that another try may cure

    def by_unit(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Which file holds which of these images' features."""
        held: dict[int, list[str]] = {}
        for name in names:
            held.setdefault(self.units[name], []).append(name)
        return dict(sorted(held.items()))


def feature_facts(options: ExtractOptions, model: Model) -> dict[str, object]:
    """Everything that features depend on, beside the image.

    Raises:
        UsageError: the decoder is not installed.
    """
    precision = "fp16" if model.half else "fp32"
    facts = {**options.identity(), **decoder_facts(options.decoder), **model.facts()}
    facts |= {"precision": precision, "algorithm": ALGORITHM}
    if not options.all_keypoints:
        facts |= {"pixels_per_keypoint": model.pixels_per_keypoint, "least_contrast": model.least_contrast}
    return facts


def standing_features(workspace: Workspace, collection: Collection, expected: str) -> FeatureSet:
    """Looks at the files that stand. A file of other options, or that cannot be read, counts as absent."""
    counts: dict[str, int] = {}
    units: dict[str, int] = {}
    failed = {name: record.error for name, record in collection.records.items() if record.error is not None}
    signatures = {name: record.signature for name, record in collection.records.items()}
    open_units, retry_units = {}, {}
    for unit, names in collection.units().items():
        path = unit_path(workspace.features, unit)
        try:
            index = read_index(path) if path.exists() else None
        except ShardError:
            index = None
        if (
            index is None
            or index.fingerprint != expected
            or any(index.signatures.get(name) != signatures[name] for name in names)
        ):
            open_units[unit] = names
            continue
        if not index.retry.isdisjoint(names):
            retry_units[unit] = names
        for name in names:
            if name in index.counts:
                counts[name], units[name] = index.counts[name], unit
            else:
                failed[name] = index.failed[name]
    described = {name: signatures[name] for name in counts}
    return FeatureSet(expected, counts, units, described, failed, open_units, retry_units)


def extract_features(
    workspace: Workspace, collection: Collection, options: ExtractOptions, *, overwrite: bool, quiet: bool = False
) -> StageReport:
    """Extracts what does not stand yet.

    Raises:
        UsageError: unknown model, device or decoder, or options that differ from those of the standing features.
        NothingDone: not one image of the collection could be used.
    """
    clock = Clock()
    with clock.on("load"):
        devices = devices_for(options)
        model = chosen_model(dataclasses.replace(options, device=devices[0], devices=None))
    facts = feature_facts(options, model)
    workspace.check("extract", facts, overwrite=overwrite)
    collection.save(workspace)  # not before the check: a refused command changes nothing
    workspace.note("extract", facts)
    before = standing_features(workspace, collection, fingerprint(facts))
    work = {**before.open_units, **before.retry_units}
    after, detail = before, ""
    if work:
        workspace.note("made by", made_by())
        frames = (header.frame(options.size, model.divisor) for header in collection.usable.values())
        context = ExtractContext(
            collection.folder,
            collection.masks,
            workspace.features,
            before.fingerprint,
            dataclasses.replace(options, workers=threads_each(options.workers, len(devices))),
            Counter(frame.bucket for frame in frames),
        )
        units = _units(collection, options.size, model.divisor, work)
        progress = Progress("extract", sum(map(len, work.values())), "images", quiet=quiet)
        try:
            receipts = list(
                done_units(devices, partial(extract_units, context), units, workspace.features, progress.advance, clock)
            )
        finally:
            progress.close()
        detail = _detail(receipts, min(len(devices), len(units))) + decoder_note(options.decoder)
        after = standing_features(workspace, collection, before.fingerprint)
    write_failed(workspace, after.failed)
    if not after.counts:
        first = ", ".join(f"{name}: {why}" for name, why in list(after.failed.items())[:3])
        raise NothingDone(f"{collection.folder}: no readable image among {len(collection.records)} ({first})")
    return StageReport(
        "extract",
        "images",
        done=sum(name in after.counts for names in work.values() for name in names),
        standing=sum(unit not in work for unit in before.units.values()),
        failed=len(after.failed),
        seconds=clock.seconds,
        spent=clock.spent,
        detail=detail,
        facts={"keypoints": sum(after.counts.values()), "total": len(after.counts)},
    )


def _units(collection: Collection, size: int, divisor: int, wanted: Mapping[int, list[str]]) -> list[Unit]:
    """Units with all that their extraction asks for."""
    headers = collection.usable
    return [
        Unit(
            number,
            tuple(Item(name, headers[name].frame(size, divisor)) for name in names),
            {name: collection.records[name].signature for name in names},
        )
        for number, names in wanted.items()
    ]


def _detail(receipts: list[UnitReceipt], workers: int) -> str:
    """What ran."""
    redone = sum(receipt.redone for receipt in receipts)
    notes = [f"{workers} workers" if workers > 1 else "", *dict.fromkeys(receipt.engine for receipt in receipts)]
    return ", ".join(filter(None, [*notes, f"{redone} images again in fp32" if redone else ""]))


def load_only(collection: Collection, options: ExtractOptions, *, quiet: bool = False) -> StageReport:
    """`--dummy-network`: reads, decodes and resizes every image as `extract_features` does, and does nothing with it.

    How many images a second this gives is what the fastest network could not exceed. Nothing is written.
    """
    clock = Clock()
    divisor, batch = chosen_model(options).divisor, 8 if options.batch == AUTO else int(options.batch)
    units = _units(collection, options.size, divisor, collection.units())
    batches = [cut for unit in units for cut in batches_of(unit.items, batch)]
    progress = Progress("load", len(collection.usable), "images", quiet=quiet)
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
