"""Features of every image: a unit is up to 64 images, its result one file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sfm_match.collection import Collection, write_failed
from sfm_match.config import AUTO, ExtractOptions
from sfm_match.errors import NothingDone
from sfm_match.frames import Frame, normalised_from_network, quarter_turned
from sfm_match.images import Header
from sfm_match.keypoints import Selection, select_keypoints
from sfm_match.loader import Item, Loaded, Loader
from sfm_match.models import Model, Weights, find_model
from sfm_match.progress import Clock, Progress, StageReport
from sfm_match.runtime import Session, create_session, resolve_precision
from sfm_match.store.features import Features, UnitResult, read_index, unit_path, write_unit
from sfm_match.store.shard import ShardError, fingerprint
from sfm_match.workspace import Workspace, made_by

TURNS = 4  # quarters, with --turns
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


def chosen_weights(options: ExtractOptions) -> Weights:
    return Weights.named(options.weights, options.weights_dir, options.random_weights)


def chosen_model(options: ExtractOptions) -> Model:
    """The model that the options name, with the weights that they name."""
    return find_model(options.model, chosen_weights(options))


def feature_facts(options: ExtractOptions, model: Model) -> dict[str, object]:
    """Everything that features depend on, beside the image."""
    precision = resolve_precision(options.precision, options.device)
    facts = {**options.identity(), **model.facts(), "precision": precision, "algorithm": ALGORITHM}
    if not options.turns:  # as in workspaces from before there were turns
        del facts["turns"]
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
        UsageError: unknown model or device, or options that differ from those of the standing features.
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
            network = Network(model, options)
            workspace.note("made by", made_by())
        detail = network.provider
        _run_units(workspace, collection, options, network, work, before.fingerprint, clock, quiet)
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
    network: "Network",
    work: dict[int, list[str]],
    expected: str,
    clock: Clock,
    quiet: bool,
) -> None:
    size = network.model.cpu_batch if options.batch == AUTO else int(options.batch)
    headers = collection.usable
    plan = {
        unit: list(_batches(names, headers, options.size, network.model.divisor, size)) for unit, names in work.items()
    }
    workers = options.workers or os.cpu_count() or 1
    every_batch = [batch for batches in plan.values() for batch in batches]
    loaded = iter(Loader(collection.folder, collection.masks, every_batch, workers, ahead=2 * max(size, workers)))
    progress = Progress("extract", sum(map(len, work.values())), "images", quiet=quiet)
    try:
        for unit, batches in plan.items():
            features: dict[str, Features] = {}
            failed: dict[str, str] = {}
            retry: set[str] = set()
            for _ in batches:
                with clock.on("decode"):
                    batch = next(loaded)
                failed |= batch.failed
                retry |= batch.retry
                for name, found in network.features(batch, clock).items():
                    if isinstance(found, str):
                        failed[name] = found
                    else:
                        features[name] = found
                progress.advance(len(batch.items) + len(batch.failed))
            with clock.on("write"):
                signatures = {name: collection.records[name].signature for name in (*features, *failed)}
                result = UnitResult(dict(sorted(features.items())), dict(sorted(failed.items())), signatures, retry)
                write_unit(unit_path(workspace.features, unit), result, expected, network.width)
    finally:
        progress.close()


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


class Network:
    """Detector and descriptor, and the selection between them."""

    def __init__(self, model: Model, options: ExtractOptions) -> None:
        self.model = model
        self._turns = TURNS if options.turns else 1
        self._detector: Session = create_session(model.detector, options.device)
        self._descriptor: Session = create_session(model.descriptor, options.device)
        # a published network without refinement gives the published keypoints, which may be neighbours
        radius = 0 if model.published and not options.subpixel else model.nms_radius
        self._how = Selection(
            options.max_keypoints, options.threshold, options.border, radius, options.subpixel, model.published
        )

    @property
    def width(self) -> int:
        """Of a row of descriptors."""
        return self._turns * self.model.dimension

    @property
    def provider(self) -> str:
        return self._detector.provider

    def features(self, batch: Loaded, clock: Clock) -> dict[str, Features | str]:
        """Features of each image of a batch, or the reason why it has none."""
        if not batch.items:
            return {}
        with clock.on("network"):
            logits = self._logits(batch.images)
        with clock.on("keypoints"):
            finite = [bool(np.isfinite(one).all()) for one in logits]
            chosen = [
                select_keypoints(one, item.frame.network_size, self._how, mask) if good else None
                for one, item, mask, good in zip(logits, batch.items, batch.masks, finite, strict=True)
            ]
        bucket = batch.items[0].frame.bucket
        most = max((len(c[0]) for c in chosen if c is not None), default=0)
        places = np.zeros((len(chosen), max(most, 1), 2), np.float32)
        for row, choice in zip(places, chosen, strict=True):
            if choice is not None:
                row[: len(choice[0])] = normalised_from_network(choice[0], bucket)
        with clock.on("network"):
            described = self._described(batch.images, places)
        results: dict[str, Features | str] = {}
        for item, choice, descriptors in zip(batch.items, chosen, described, strict=True):
            results[item.name] = _result(item.frame, choice, descriptors)
        return results

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, H, W). The mean over turns: keypoints do not depend on how the picture lies."""
        total = np.zeros((len(images), *images.shape[2:]), np.float32)
        for turn in range(self._turns):
            found = self._detector.run({"image": _turned(images, turn)})["logits"]
            total += _turned(found, -turn)[:, 0]
        return np.divide(total, self._turns, dtype=np.float32)

    def _described(self, images: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, N, turns * D), the turns side by side."""
        return np.concatenate(
            [
                self._descriptor.run({"image": _turned(images, turn), "keypoints": quarter_turned(places, turn)})[
                    "descriptors"
                ]
                for turn in range(self._turns)
            ],
            axis=2,
        )


def _turned(maps: NDArray[np.float32], turns: int) -> NDArray[np.float32]:
    """(B, C, H, W), each map turned by quarters."""
    return np.ascontiguousarray(np.rot90(maps, turns, axes=(2, 3)))


def _result(
    frame: Frame, choice: tuple[NDArray[np.float32], NDArray[np.float32]] | None, descriptors: NDArray[np.float32]
) -> Features | str:
    if choice is None or not np.isfinite(descriptors).all():
        return "the network gave values that are not finite"
    points, scores = choice
    if not len(points):
        return "no keypoint found"
    return Features(frame.raw_from_network(points), scores, descriptors[: len(points)].astype(np.float16))
