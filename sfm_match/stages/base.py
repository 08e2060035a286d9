"""What a stage is, the table of all stages, and the job that they hand on.

A new stage is a module with `check`, `status` and `run`, a line in `STAGES`, and its options in `options`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from sfm_match.colmap import log_colmap_to
from sfm_match.errors import NothingDone
from sfm_match.images.collection import Collection
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.progress import OnProgress, Progress, StageReport
from sfm_match.job.stage_record import record_failure, record_stage
from sfm_match.job.workspace import Workspace
from sfm_match.options.run import RunOptions
from sfm_match.stages.state import (
    FeatureSet,
    MatchSet,
    all_extracted,
    all_matched,
    move_aside,
    recorded_features,
    recorded_matches,
)
from sfm_match.store.shard import ShardError, damaged_beside, set_aside


class DamagedInput(NothingDone):
    """A file that an earlier stage made was damaged, and is out of the way: that stage makes it again."""


if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool


@dataclass
class Job:
    """A run over a workspace: its images, its options, and what its stages found, so that little is found twice."""

    workspace: Workspace
    collection: Collection
    options: RunOptions = field(default_factory=RunOptions)
    overwrite: bool = False  # replace results of other options
    quiet: bool = True  # no progress on stderr
    on_progress: OnProgress | None = None
    found_features: FeatureSet | None = None  # by the stage that ran, or when they were first asked for
    found_matches: MatchSet | None = None

    @property
    def features(self) -> FeatureSet:
        """The features of the collection.

        Raises:
            NothingDone: there are none, or some images are still to be extracted.
        """
        if self.found_features is None:
            self.found_features = recorded_features(self.workspace, self.collection)
            give_memory_back()
        return all_extracted(self.workspace, self.found_features)

    @property
    def matches(self) -> MatchSet:
        """The matches of the pairs of `pairs.txt`.

        Raises:
            NothingDone: there are none, or some pairs are still to be matched.
        """
        if self.found_matches is None:
            self.workspace.tell_if_changed(self.workspace.pairs)
            self.found_matches = recorded_matches(self.workspace, self.collection, self.features)
            give_memory_back()
        return all_matched(self.workspace, self.found_matches)

    def moved_aside(self, error: ShardError) -> "DamagedInput":
        """Takes a damaged file out of the way, and those beside it: what spoiled one may have spoiled more.

        What was found is forgotten: the file's stage makes it again.
        """
        self.found_features = self.found_matches = None
        move_aside(damaged_beside(error))
        aside = set_aside(error.path) if error.path.exists() else error.path
        return DamagedInput(
            f"{error.path}: damaged ({error.reason}); moved to {aside.name}: `sfm-match {error.command}` makes it again"
        )

    def progress(self, what: str, total: int, unit: str, work: float | None = None, /) -> Progress:
        """Of a stage, or of a part of it. What was freed before goes back to the system."""
        give_memory_back()
        return Progress(what, total, unit, work, quiet=self.quiet, on_progress=self.on_progress)


class StageModule(Protocol):
    """What the module of a stage has."""

    def check(self, job: Job) -> None:
        """Raises what `run` would raise and can be known before the stages before it have run. Writes nothing."""

    def status(self, job: Job) -> int:
        """How many images or pairs are up to date. Looks at an unopened workspace, too, and writes nothing."""

    def run(self, job: Job) -> StageReport:
        """Does what is not up to date."""


@dataclass(frozen=True)
class Stage:
    """A line of the table."""

    name: str  # of the command
    module: str  # a `StageModule`
    result: Callable[[Workspace], Path]  # what it leaves
    wanted: Callable[[RunOptions], bool] = lambda _: True  # whether `run` runs it
    reads_images: bool = False  # its command asks for the folder of photographs

    def load(self) -> StageModule:
        """Its module, which may be slow to import."""
        return cast(StageModule, importlib.import_module(self.module))


STAGES = (
    Stage("extract", "sfm_match.stages.extract", lambda place: place.features, reads_images=True),
    Stage("pairs", "sfm_match.stages.pairs", lambda place: place.pairs),
    Stage("match", "sfm_match.stages.match", lambda place: place.matches),
    Stage("import", "sfm_match.stages.import_", lambda place: place.database),
    Stage(
        "reconstruct",
        "sfm_match.stages.reconstruct",
        lambda place: place.sparse,
        lambda options: options.reconstruct.mapper != "none",
    ),
    Stage("report", "sfm_match.stages.report", lambda place: place.report, lambda options: options.report),
)
REPORT = "report"  # the stage that `run` ends with, whatever becomes of the others


def ray_pool(address: str | None, device: str | None) -> "RayPool | None":
    """Workers on a cluster, where one is asked for.

    Args:
        address: of the cluster; None: none is asked for.
        device: that a worker takes; None: what no GPU does, on each processor.

    Raises:
        UsageError: the device is not here, or the cluster cannot be had.
    """
    if address is None:
        return None
    from sfm_match.job.ray_workers import RayPool
    from sfm_match.runtime.devices import choose

    return RayPool(address, None if device is None else choose(device).device)


def stage(name: str) -> StageModule:
    """The module of a stage, by the name of its command."""
    return next(one for one in STAGES if one.name == name).load()


def run_stage(name: str, job: Job) -> StageReport:
    """Runs a stage, and records what it did, or why it could do nothing; not of a part, which is not the stage.

    Raises:
        DamagedInput: a file of an earlier stage is damaged; it is out of the way.
    """
    log_colmap_to(job.workspace.colmap_log)
    if job.workspace.shared:
        return stage(name).run(job)
    with job.workspace.not_deleted(name):
        try:
            report = stage(name).run(job)
        except NothingDone as error:
            record_failure(job.workspace, name, error)
            raise
        except ShardError as error:
            raise job.moved_aside(error) from error
        record_stage(job.workspace, report)
    return report
