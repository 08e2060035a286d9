"""Features of every image: a unit is up to 64 images, its result one file."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sfm_match.collection import Collection, write_failed
from sfm_match.config import AUTO, ExtractOptions
from sfm_match.decoders import decoder_facts, decoder_note, find_decoder
from sfm_match.errors import NothingDone
from sfm_match.extractor import Extractor, chosen_model
from sfm_match.images import Header
from sfm_match.loader import Item, Loaded, Loader
from sfm_match.models import Model
from sfm_match.progress import Clock, Progress, StageReport
from sfm_match.store.features import Features, UnitResult, read_index, unit_path, write_unit
from sfm_match.store.shard import ShardError, fingerprint
from sfm_match.workspace import Workspace, made_by

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
        model = chosen_model(options)
    facts = feature_facts(options, model)
    workspace.check("extract", facts, overwrite=overwrite)
    collection.save(workspace)  # not before the check: a refused command changes nothing
    workspace.note("extract", facts)
    before = standing_features(workspace, collection, fingerprint(facts))
    work = {**before.open_units, **before.retry_units}
    after, detail = before, ""
    if work:
        with clock.on("load"):
            # of all images, so that a job that goes on asks for the engines that it began with
            frames = (header.frame(options.size, model.divisor) for header in collection.usable.values())
            extractor = Extractor(model, options, Counter(frame.bucket for frame in frames))
            workspace.note("made by", made_by())
        _run_units(workspace, collection, options, extractor, work, before.fingerprint, clock, quiet)
        detail = extractor.detail + decoder_note(options.decoder)
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


def _run_units(
    workspace: Workspace,
    collection: Collection,
    options: ExtractOptions,
    extractor: Extractor,
    work: dict[int, list[str]],
    expected: str,
    clock: Clock,
    quiet: bool,
) -> None:
    plan = _plan(collection, options, extractor.model.divisor, extractor.batch, work)
    loaded = iter(_loader(collection, options, plan, extractor.batch))

    def read() -> Iterator[Loaded]:
        while True:
            with clock.on("decode"):
                batch = next(loaded, None)
            if batch is None:
                return
            yield batch

    found = extractor.each(read(), clock)
    progress = Progress("extract", sum(map(len, work.values())), "images", quiet=quiet)
    try:
        for unit, batches in plan.items():
            features: dict[str, Features] = {}
            failed: dict[str, str] = {}
            retry: set[str] = set()
            for _ in batches:
                batch, results = next(found)
                failed |= batch.failed
                retry |= batch.retry
                for name, one in results.items():
                    if isinstance(one, str):
                        failed[name] = one
                    else:
                        features[name] = one
                progress.advance(len(batch.items) + len(batch.failed))
            with clock.on("write"):
                signatures = {name: collection.records[name].signature for name in (*features, *failed)}
                result = UnitResult(dict(sorted(features.items())), dict(sorted(failed.items())), signatures, retry)
                write_unit(unit_path(workspace.features, unit), result, expected, extractor.width)
    finally:
        progress.close()


def _plan(
    collection: Collection, options: ExtractOptions, divisor: int, batch: int, work: dict[int, list[str]]
) -> dict[int, list[list[Item]]]:
    """Units to their batches."""
    headers = collection.usable
    return {unit: list(_batches(names, headers, options.size, divisor, batch)) for unit, names in work.items()}


def _loader(collection: Collection, options: ExtractOptions, plan: dict[int, list[list[Item]]], batch: int) -> Loader:
    workers = options.workers or os.cpu_count() or 1
    every_batch = [items for batches in plan.values() for items in batches]
    ahead = 2 * max(batch, workers)
    decoder = find_decoder(options.decoder, options.device)
    return Loader(
        collection.folder,
        collection.masks,
        every_batch,
        workers,
        ahead,
        reduced=options.reduced_decode,
        decoder=decoder,
    )


def load_only(collection: Collection, options: ExtractOptions, *, quiet: bool = False) -> StageReport:
    """`--dummy-network`: reads, decodes and resizes every image as `extract_features` does, and does nothing with it.

    How many images a second this gives is what the fastest network could not exceed. Nothing is written.
    """
    clock = Clock()
    divisor, batch = chosen_model(options).divisor, 8 if options.batch == AUTO else int(options.batch)
    plan = _plan(collection, options, divisor, batch, collection.units())
    progress = Progress("load", len(collection.usable), "images", quiet=quiet)
    loaded, failed = 0, 0
    for read in _loader(collection, options, plan, batch):
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


def _batches(
    names: Sequence[str], headers: dict[str, Header], size: int, divisor: int, batch: int
) -> Iterator[list[Item]]:
    """A unit's images by bucket, at most `batch` at a time."""
    items = [Item(name, headers[name].frame(size, divisor)) for name in names]
    items.sort(key=lambda item: item.frame.bucket)  # stable: by name within a bucket
    for _, group in groupby(items, key=lambda item: item.frame.bucket):
        same = list(group)
        for start in range(0, len(same), batch):
            yield same[start : start + batch]
