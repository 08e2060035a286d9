"""`sfm-match plan`: what `run` would do, from the headers of the images and a few seconds of work. Writes nothing."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from sfm_match.api import StrPath
from sfm_match.commands.plan.counts import Counted, cheaper_ones, count_pairs
from sfm_match.commands.plan.measure import Measured, measure
from sfm_match.errors import NothingDone
from sfm_match.features.dedode import images_a_batch
from sfm_match.features.extractor import FeatureModel, extractor_of
from sfm_match.features.tiles import buckets_of, geometry_of
from sfm_match.images.collection import UNIT_SIZE, preview_collection
from sfm_match.images.files import Header
from sfm_match.images.videos import Sampling
from sfm_match.job.concurrency import AHEAD
from sfm_match.job.workspace import Workspace
from sfm_match.models import Model
from sfm_match.options.arguments import checked
from sfm_match.options.keywords import RunKeywords
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.run import run_options
from sfm_match.options.stages import ExtractOptions, ImportOptions, MatchOptions, ReconstructOptions
from sfm_match.refine.keypoints import PARTNERS
from sfm_match.runtime.devices import choose, devices_of
from sfm_match.runtime.gpus import gpus
from sfm_match.runtime.planning import WORKERS, assumed_free
from sfm_match.signals import temporary_folder
from sfm_match.stages.base import STAGES, Job
from sfm_match.stages.feature_cache import KEPT
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.stages.pairs import settled
from sfm_match.stages.strategies import Sources

TOO_MANY = 100_000_000  # pairs; beyond, nobody means it
_BYTES_PER_MATCH = 4  # in the files, rounded up
_BYTES_PER_RELATION = 120  # of the adjustment of keypoints, when tracks come to agree
_BYTES_PER_PAIR = 32  # of the lists of pairs that matching and import hold while they read them
_SHOWN = 3  # images that will fail, by name
MACHINES = (2, 4, 8, 16)  # for which times are told
_DIVIDED = ("extract", "match")  # by --part and --ray
_WORTH_DIVIDING = 600.0  # seconds of a job


@dataclass(frozen=True)
class StagePlan:
    """What is left of a stage."""

    stage: str
    unit: str  # of what is counted
    total: int
    done: int  # by an earlier run
    files: int  # units of work
    seconds: float | None  # None: not known beforehand
    disk: int  # bytes that its results will take, with those that are there

    def largest_share(self, machines: int) -> float:
        """Of what is left, where machines divide it: they do whole units."""
        units = math.ceil(self.files * (self.total - self.done) / max(self.total, 1))
        return math.ceil(units / machines) / max(units, 1)


@dataclass(frozen=True)
class Plan:
    """The whole job."""

    images: int
    failing: dict[str, str]  # name -> reason, told from headers
    reason: str  # why `auto` chose
    pairs: Counted
    cheaper: list[Counted]
    cheaper_seconds: list[float | None]
    stages: list[StagePlan]
    memory: int  # bytes, peak
    gpu_memory: int | None  # bytes; None without a GPU
    refusal: str | None

    @property
    def disk(self) -> int:
        return sum(stage.disk for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of all stages whose time is known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    def seconds_on(self, machines: int) -> float:
        """As `seconds`, with extraction and matching on so many machines like this one, and the rest on one."""
        return sum(
            (one.seconds or 0.0) * (one.largest_share(machines) if one.stage in _DIVIDED else 1.0)
            for one in self.stages
        )

    def as_json(self) -> dict[str, Any]:
        machines = {str(number): self.seconds_on(number) for number in MACHINES}
        return {**asdict(self), "disk": self.disk, "seconds": self.seconds, "seconds_on_machines": machines}

    def lines(self) -> list[str]:
        """For people."""
        failing = list(self.failing.items())
        shown = "; ".join(f"{name}: {why}" for name, why in failing[:_SHOWN]) + ("; ..." if failing[_SHOWN:] else "")
        lines = [
            f"images       {self.images:,}, {len(failing):,} of them cannot be used"
            + (f" ({shown})" if failing else ""),
            f"pairs        {self.pairs.shown()}" + (f" ({self.reason})" if self.reason else ""),
        ]
        for way, seconds in zip(self.cheaper, self.cheaper_seconds, strict=True):
            lines.append(f"  cheaper    {way.shown()}, {_shown_time(seconds)} to match and verify")
        for one in self.stages:
            done = f", {one.done:,} up to date" if one.done else ""
            cost = _shown_time(one.seconds) + (f", {_shown_bytes(one.disk)}" if one.disk else "")
            files = f"{one.files:,} unit{'s' * (one.files != 1)}"
            lines.append(f"{one.stage:<12} {one.total:,} {one.unit} in {files}{done}: {cost}")
        if self.seconds >= _WORTH_DIVIDING:
            each = ", ".join(f"{_shown_time(self.seconds_on(number))} on {number}" for number in MACHINES)
            hours = self.seconds / 3600
            lines.append(f"machines     {each}, dividing extract and match; {hours:,.1f} machine-hours")
        lines.append(f"disk         {_shown_bytes(self.disk)}")
        lines.append(f"memory       {_shown_bytes(self.memory)} at most")
        if self.gpu_memory is not None:
            lines.append(f"GPU memory   {_shown_bytes(self.gpu_memory)} at most")
        return lines


@checked
def plan(
    images: StrPath,
    workspace: StrPath = "workspace",
    *,
    extract: ExtractOptions | None = None,
    pairs: PairsOptions | str | None = None,
    match: MatchOptions | None = None,
    import_: ImportOptions | None = None,
    reconstruct: ReconstructOptions | None = None,
    overwrite: bool = False,
    **keywords: Unpack[RunKeywords],
) -> Plan:
    """What `run` would do with these arguments: starts nothing, and leaves the workspace as it is.

    Args:
        images: folder of photographs, a video, or a folder with videos.
        workspace: folder of the job; it need not be there.
        extract, pairs, match, import_, reconstruct: as in `run`.
        overwrite: as in `run`, results of other options would be replaced.
        **keywords: of `run`.

    Raises:
        UsageError, NothingDone: where `run` would refuse.
    """
    every = run_options(keywords, extract, pairs, match, import_, reconstruct, command="plan")
    place = Workspace(Path(workspace), overwrite=overwrite)  # not opened: that would make it, and lock it
    place.read_record()  # refuses another version's, as opening does
    sampling = Sampling(every.extract.fps, every.extract.frames)
    with temporary_folder("sfm-match-plan-") as frames:  # of videos
        collection = preview_collection(place, Path(images), every.extract.masks, sampling, frames, overwrite=overwrite)
        return _planned(Job(place, collection, every, overwrite=overwrite))


def _planned(job: Job) -> Plan:
    collection, every, overwrite = job.collection, job.options, job.overwrite
    if len(collection.usable) < 2:
        raise NothingDone(f"{collection.folder}: {len(collection.usable)} usable image, a pair needs two")
    wanted = [stage for stage in STAGES if stage.wanted(every)]
    for stage in wanted:
        stage.load().check(job)
    chosen, reason = settled(collection, every.pairs)
    sources = Sources(job, chosen)
    done = {stage.name: 0 if overwrite else stage.load().status(job) for stage in wanted}
    counted = count_pairs(sources)
    if done["extract"] == sources.count and done["pairs"]:  # the list is there, with what was added to it
        counted = dataclasses.replace(counted, pairs=done["pairs"], exact=True)
    cheaper = cheaper_ones(sources, counted.pairs)
    costs = measure(collection.folder, list(collection.usable), every)
    model = extractor_of(every.extract.model).chosen_model(every.extract)
    stages = _stages(sources, counted, costs, done)
    if "reconstruct" in done:
        left = done["reconstruct"] == 0 or any(stage.seconds != 0 for stage in stages)
        stages.append(StagePlan("reconstruct", "images", sources.count, done["reconstruct"], 1, None if left else 0, 0))
    return Plan(
        len(collection.records),
        {name: record.error for name, record in collection.records.items() if record.error is not None},
        reason,
        counted,
        cheaper,
        [_times(way.pairs, costs.seconds_per_match, costs.seconds_per_verification) for way in cheaper],
        stages,
        _memory(counted, costs, sources.count),
        gpu_memory(every.extract, model, collection.usable.values()),
        _refusal(counted, cheaper, costs),
    )


def gpu_memory(options: ExtractOptions, model: FeatureModel, headers: Iterable[Header]) -> int | None:
    """Bytes of a GPU that the networks' activations take at most, in two workers.

    None where no GPU is used, and of networks from elsewhere, of which nobody knows it.
    """
    found, choice = gpus(), choose(devices_of(options.device, options.devices)[0])
    if not found or choice.device == "cpu" or not isinstance(model, Model):
        return None
    shapes = {(h.width, h.height, h.orientation): h for h in headers}
    buckets = buckets_of((geometry_of(h, options, model.divisor) for h in shapes.values()), options, model.divisor)
    batch = images_a_batch(model, options.batch, buckets, assumed_free(found[choice.index].memory))
    return int(WORKERS * batch * model.spec.activations * max(map(math.prod, buckets)))


def _stages(sources: Sources, counted: Counted, costs: Measured, done: Mapping[str, int]) -> list[StagePlan]:
    """What is left before the reconstruction."""
    images, options = sources.count, sources.options
    units = sources.job.collection.units()
    unmatched = max(counted.pairs - done["match"], 0)
    unverified = max(counted.pairs - done["import"], 0)
    plain = dataclasses.replace(sources, options=dataclasses.replace(options, prune=False))
    scoring: float | None = 0.0
    if plain.needs_features:
        scoring = None  # one vector an image: beside the features' extraction, little
    elif options.prune:
        scoring = _times(count_pairs(plain).pairs, costs.seconds_per_score)
    names = sum(len(name.encode()) + 1 for name in sources.names) // images
    extracting = _times(max(images - done["extract"], 0), costs.seconds_per_image)
    matching = _times(unmatched, costs.seconds_per_match)
    importing = _times(unverified, costs.seconds_per_verification)
    if importing is not None:
        importing += min(unverified, PARTNERS * images) * costs.seconds_per_adjustment
    stored = images * costs.database_bytes_per_image + counted.pairs * costs.database_bytes_per_pair
    return [
        StagePlan("extract", "images", images, done["extract"], len(units), extracting, images * costs.feature_bytes),
        StagePlan("pairs", "pairs", counted.pairs, done["pairs"], 1, scoring, counted.pairs * 2 * names),
        StagePlan(
            "match",
            "pairs",
            counted.pairs,
            done["match"],
            counted.blocks,
            matching,
            counted.pairs * costs.match_bytes,
        ),
        StagePlan("import", "pairs", counted.pairs, done["import"], 1, importing, stored),
    ]


def _memory(counted: Counted, costs: Measured, images: int) -> int:
    """Bytes: what the measurement took, beside what is held of a large job, stage by stage, and the lists of pairs."""
    extracted = AHEAD * UNIT_SIZE * costs.feature_bytes  # units that wait for the disk
    # of matching: descriptors as float32, twice as wide as on the disk, beside those that are kept
    block = 2 * BLOCK * 2 * costs.feature_bytes + min(KEPT, images * costs.feature_bytes)
    aligned = 0
    if costs.seconds_per_adjustment:
        aligned = min(counted.pairs, PARTNERS * images) * costs.match_bytes // _BYTES_PER_MATCH * _BYTES_PER_RELATION
    return costs.peak_memory + max(extracted, block, aligned) + counted.pairs * _BYTES_PER_PAIR


def _refusal(counted: Counted, cheaper: list[Counted], costs: Measured) -> str | None:
    """In a line, why this is not meant to be run, and what serves."""
    if counted.pairs <= TOO_MANY:
        return None
    seconds = _times(counted.pairs, costs.seconds_per_match, costs.seconds_per_verification)
    others = ", or ".join(f"`--strategy {way.strategy}` ({way.pairs:,} pairs)" for way in cheaper)
    return f"{counted.shown()} would take {_shown_time(seconds)} here; choose {others}, or another list of pairs"


def _times(number: int, *seconds: float | None) -> float | None:
    """Of so many units; None where their cost is not known."""
    return None if any(s is None for s in seconds) and number else number * sum(s or 0.0 for s in seconds)


def _shown_time(seconds: float | None) -> str:
    if seconds is None:
        return "time not known beforehand"
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.0f} s"


def _shown_bytes(size: int) -> str:
    for unit, name in ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1024:.0f} kB"
