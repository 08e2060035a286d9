"""Features of units of images: what a worker does, without the workspace."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import prod
from pathlib import Path

from sfm_match.features.extractor import Extractor, extractor_of
from sfm_match.features.tiles import create_extractor
from sfm_match.images.decoders import find_decoder
from sfm_match.images.loader import Item, Loaded, Loader
from sfm_match.job.concurrency import in_background
from sfm_match.job.executor import threads_each
from sfm_match.job.progress import Advance, Clock
from sfm_match.options.stages import ExtractOptions
from sfm_match.store.features import Features, UnitIndex, UnitResult, unit_path, write_unit

# What a pixel of a file takes to decode and resize, beside one of the network's: dedode-nano's on a CPU, 8 and 108 ns.
DECODED = 0.07


@dataclass(frozen=True)
class Unit:
    """Images whose features one file holds."""

    number: int
    items: tuple[Item, ...]  # by name
    signatures: dict[str, str]  # of their files


@dataclass(frozen=True)
class ExtractContext:
    """What units are extracted with, the device apart."""

    images: Path  # folder
    masks: Path | None  # folder
    features: Path  # folder
    fingerprint: str
    options: ExtractOptions
    buckets: Mapping[tuple[int, int], int]  # (width, height) of all the job's padded images, or their tiles -> how many


@dataclass(frozen=True)
class UnitReceipt:
    """A unit whose file is on the disk."""

    number: int
    engine: str  # what ran, for the report
    redone: int  # images in float32, of this unit or one beside it
    head: UnitIndex  # of the file


def extract_units(
    context: ExtractContext, device: str, units: Iterator[Unit], advance: Advance, clock: Clock
) -> Iterator[UnitReceipt]:
    """Extracts units on a device and writes their files (an `executor.Work`, the context bound).

    Raises:
        EngineError: the engine refuses a network, or has no memory for one image.
        OSError: a file cannot be written.
    """
    with clock.on("load"):
        options = dataclasses.replace(context.options, device=device, devices=None)
        # of all images, so that a job that goes on asks for the engines that it began with
        model = extractor_of(options.model).chosen_model(options)
        extractor = create_extractor(model, options, context.buckets)
    told = 0  # images in float32

    def write(result: tuple[int, UnitResult]) -> UnitReceipt:
        nonlocal told
        number, features = result
        write_unit(unit_path(context.features, number), features, context.fingerprint, extractor.width)
        redone, told = extractor.redone - told, extractor.redone
        return UnitReceipt(number, extractor.engine, redone, features.index(context.fingerprint))

    results = _results(context, options, extractor, units, advance, clock)
    yield from in_background(results, write, partial(clock.on, "write"))


def _results(
    context: ExtractContext,
    options: ExtractOptions,
    extractor: Extractor,
    units: Iterator[Unit],
    advance: Advance,
    clock: Clock,
) -> Iterator[tuple[int, UnitResult]]:
    """Each unit's number and what became of its images."""
    taken: deque[tuple[Unit, deque[Sequence[Item]]]] = deque()  # units that are begun, and their batches to come

    def batches() -> Iterator[Sequence[Item]]:
        for unit in units:
            cut = list(batches_of(unit.items, extractor.batch))
            taken.append((unit, deque(cut)))
            yield from cut

    loaded = iter(loader_for(context.images, context.masks, options, batches(), extractor.batch))

    def read() -> Iterator[Loaded]:
        while True:
            with clock.on("decode"):
                batch = next(loaded, None)
            if batch is None:
                return
            yield batch
            del batch  # or it would stay in memory while the next one is read

    features: dict[str, Features] = {}
    failed: dict[str, str] = {}
    retry: set[str] = set()
    for batch, results in extractor.each(read(), clock):
        failed |= batch.failed
        retry |= batch.retry
        for name, found in results.items():
            if isinstance(found, str):
                failed[name] = found
            else:
                features[name] = found
        advance(len(batch.items) + len(batch.failed), work_of(taken[0][1].popleft()))
        if not taken[0][1]:
            unit, _ = taken.popleft()
            ordered = dict(sorted(features.items())), dict(sorted(failed.items()))
            signatures = {name: unit.signatures[name] for part in ordered for name in part}
            yield unit.number, UnitResult(*ordered, signatures, retry)
            features, failed, retry = {}, {}, set()


def work_of(items: Iterable[Item]) -> float:
    """How much work images are, for the time left: pixels at the network, and with them those that are decoded."""
    geometries = [item.geometry for item in items]
    return sum(prod(g.bucket) + DECODED * prod(g.raw_size) for g in geometries)


def batches_of(items: Iterable[Item], batch: int) -> Iterator[Sequence[Item]]:
    """Images by bucket, at most `batch` at a time.

    A batch does not cross units: an image's features then do not depend on which units a worker happens to take, or on
    where a job that was killed went on.
    """
    ordered = sorted(items, key=lambda item: item.geometry.bucket)  # stable: by name within a bucket
    for _, group in groupby(ordered, key=lambda item: item.geometry.bucket):
        same = list(group)
        for start in range(0, len(same), batch):
            yield same[start : start + batch]


def loader_for(
    images: Path, masks: Path | None, options: ExtractOptions, batches: Iterable[Sequence[Item]], batch: int
) -> Loader:
    """Reads batches as the options say, far enough ahead for the network not to wait.

    With `--tile` not ahead: memory is what is short, and the network takes far longer.
    """
    workers = threads_each(options.workers)
    return Loader(
        images,
        masks,
        batches,
        workers,
        2 * max(batch, workers) if options.tile is None else 0,
        reduced=options.reduced_decode,
        decoder=find_decoder(options.decoder, options.device),
    )
