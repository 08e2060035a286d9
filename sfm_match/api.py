"""The commands as Python functions: same names, same options, one `StageReport` a stage.

Options are given by name, as an option group, or both: then names go before. A run's are those of all stages.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar, Unpack

from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.collection import Collection, refresh_collection
from sfm_match.images.videos import Sampling
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import OnProgress, Progress, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.options.arguments import checked
from sfm_match.options.base import Options, options_of
from sfm_match.options.keywords import (
    ExtractKeywords,
    ImportKeywords,
    MatchKeywords,
    PairsKeywords,
    ReconstructKeywords,
    RunKeywords,
)
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.run import RunOptions, run_options
from sfm_match.options.stages import ExtractOptions, ImportOptions, MatchOptions, ReconstructOptions
from sfm_match.stages.base import REPORT, STAGES, DamagedInput, Job, Stage, run_stage, stage

StrPath = str | Path
T = TypeVar("T", bound=Options)
_REPAIRS = 3  # times that a run makes damaged files again; a disk that spoils them again and again is to be replaced


@checked
def extract(
    images: StrPath,
    workspace: StrPath = "workspace",
    options: ExtractOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[ExtractKeywords],
) -> StageReport:
    """Features of every image.

    Args:
        images: folder of photographs, a video, or a folder with videos.
        workspace: folder of the job.
        options: of the extraction.
        overwrite: replace results of other options.
        quiet: no progress on stderr.
        on_progress: told how far it is.
        **keywords: options by name.
    """
    chosen = _chosen("extract", ExtractOptions, options, keywords)
    folder = _folder(workspace, chosen)
    with Workspace(folder, overwrite=overwrite, part=_part("extract", chosen.part)) as place:
        job = _begun(place, images, RunOptions(extract=chosen), overwrite, quiet, on_progress)
        if chosen.dummy_network:
            from sfm_match.stages.extract import load_only

            return load_only(job)
        return _alone("extract", job)


@checked
def pairs(
    workspace: StrPath = "workspace",
    images: StrPath | None = None,
    options: PairsOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[PairsKeywords],
) -> StageReport:
    """Writes `pairs.txt`, or adds the pairs of a second round. Arguments are those of `extract`.

    With `images`, the folder is looked at first: pairs can be made before images are extracted.
    """
    chosen = _chosen("pairs", PairsOptions, options, keywords)
    with Workspace(Path(workspace)) as place:
        if images is None:
            collection = Collection.load(place)
        else:
            masks = Collection.load(place).masks if place.collection.exists() else None
            progress = partial(Progress, quiet=quiet, on_progress=on_progress)
            collection = refresh_collection(place, Path(images), masks, overwrite=overwrite, progress=progress)
        report = _alone("pairs", Job(place, collection, RunOptions(pairs=chosen), overwrite, quiet, on_progress))
        collection.save(place)
        return report


@checked
def match(
    workspace: StrPath = "workspace",
    options: MatchOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[MatchKeywords],
) -> StageReport:
    """Matches of every pair of `pairs.txt`. Arguments are those of `extract`."""
    chosen = _chosen("match", MatchOptions, options, keywords)
    with _opened(_folder(workspace, chosen), _part("match", chosen.part)) as (place, collection):
        return _alone("match", Job(place, collection, RunOptions(match=chosen), overwrite, quiet, on_progress))


@checked
def import_(
    workspace: StrPath = "workspace",
    options: ImportOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[ImportKeywords],
) -> StageReport:
    """Builds and verifies `database.db`. Arguments are those of `extract`."""
    chosen = _chosen("import", ImportOptions, options, keywords)
    with _opened(_folder(workspace, chosen)) as (place, collection):
        return _alone("import", Job(place, collection, RunOptions(import_=chosen), overwrite, quiet, on_progress))


@checked
def reconstruct(
    workspace: StrPath = "workspace",
    options: ReconstructOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[ReconstructKeywords],
) -> StageReport:
    """Builds `sparse/0` ... Arguments are those of `extract`."""
    mapping = _chosen("reconstruct", ReconstructOptions, options, keywords)
    with _opened(workspace) as (place, collection):
        return _alone(
            "reconstruct", Job(place, collection, RunOptions(reconstruct=mapping), overwrite, quiet, on_progress)
        )


@checked
def report(
    workspace: StrPath = "workspace",
    *,
    pair: tuple[str, str] | None = None,
    out: StrPath | None = None,
    png: StrPath | None = None,
    overwrite: bool = False,
) -> StageReport:
    """Writes `report.html`, of any workspace: finished, unfinished or broken. A job may be running in it.

    With `pair` or `png`, pictures instead of the page.

    Args:
        workspace: folder of the job.
        pair: names of two images, to draw with their matches.
        out: picture of the pair to write, .png or .jpg; None: `pair.png`.
        png: picture of the largest model to write, from above and from the side.
        overwrite: pictures, or a `report.html` of somebody else's, that are there.

    Returns:
        Of the page, `facts` holds `path`, `bytes`, `registered` (images) and `level`: good, look, bad or unfinished.
        Of pictures, `path`, of the first one, and `pictures`, all paths.

    Raises:
        NothingDone: there is no workspace, no such pair, no model.
        UsageError: there is no such image, or a file is there that is not to be replaced.
    """
    from sfm_match.reporting.draw import draw
    from sfm_match.stages.report import make

    if out is not None and pair is None:
        raise UsageError(f"--out {out}: needs --pair, the images to draw")
    if pair is None and png is None:
        return make(Workspace(Path(workspace)), replace=overwrite)
    return draw(
        Path(workspace), pair, Path(out or "pair.png"), Path(png) if png is not None else None, overwrite=overwrite
    )


@checked
def run(
    images: StrPath,
    workspace: StrPath = "workspace",
    *,
    extract: ExtractOptions | None = None,
    pairs: PairsOptions | str | None = None,
    match: MatchOptions | None = None,
    import_: ImportOptions | None = None,
    reconstruct: ReconstructOptions | None = None,
    report: bool = True,
    overwrite: bool = False,
    quiet: bool = True,
    on_report: Callable[[StageReport], None] = lambda _: None,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[RunKeywords],
) -> list[StageReport]:
    """All stages; what is up to date is not computed again.

    Args:
        images: folder of photographs, a video, or a folder with videos.
        workspace: folder of the job.
        extract, pairs, match, import_, reconstruct: options of a stage; `pairs` may be the name of a strategy.
        report: end with `report.html`, whatever becomes of the stages.
        overwrite: replace results of other options.
        quiet: no progress on stderr.
        on_report: called as each stage ends.
        on_progress: called as a stage advances, from any thread.
        **keywords: options of any stage by name (`strategy`, `match_threshold`, ...).

    Raises:
        UsageError: options that are not accepted, or that differ from those of results that are there. Every stage's
            are checked before the first one begins.
        NothingDone: no usable image, no pair, no model.
    """
    chosen = replace(run_options(keywords, extract, pairs, match, import_, reconstruct), report=report)
    wanted = [one for one in STAGES if one.wanted(chosen)]
    with Workspace(_folder(workspace, chosen.extract), overwrite=overwrite) as place:
        job = _begun(place, images, chosen, overwrite, quiet, on_progress)
        for later in wanted[1:]:
            later.load().check(job)
        try:
            reports = _each_repaired(job, [one for one in wanted if one.name != REPORT], on_report)
        except NothingDone as error:
            if not report or not place.collection.exists():
                raise
            stage(REPORT).run(job)
            raise NothingDone(f"{error}; see {place.report}") from error
        if report:
            stage(REPORT).run(job)
    return reports


def _each_repaired(job: Job, stages: list[Stage], on_report: Callable[[StageReport], None]) -> list[StageReport]:
    """Runs the stages, and again where one found a damaged file of an earlier one: that is made again."""
    for _ in range(_REPAIRS):
        try:
            return _each(job, stages, on_report)
        except DamagedInput as error:
            LOGGER.warning("%s", error)
    return _each(job, stages, on_report)


def _each(job: Job, stages: list[Stage], on_report: Callable[[StageReport], None]) -> list[StageReport]:
    """Runs the stages. Where one image is left of several, the first stage is the last one, too."""
    first, *others = stages
    extracted = run_stage(first.name, job)
    for later in others:  # what is known by now: images that failed
        later.load().check(job)
    alone = extracted.facts["total"] < 2 and extracted.failed > 0
    if alone:  # what could be done was done; failed.csv says why it is so little
        extracted.detail = f"{extracted.facts['total']} usable image, a pair needs two: stopped here"
    reports = [extracted]
    on_report(extracted)
    for later in [] if alone else others:
        reports.append(run_stage(later.name, job))
        on_report(reports[-1])
    return reports


def _alone(name: str, job: Job) -> StageReport:
    """Runs a single stage. A `report.html` of before is made again where the job ends, and else called old."""
    from sfm_match.stages.report import refresh

    try:
        report = run_stage(name, job)
    except NothingDone:
        refresh(job, name)
        raise
    refresh(job, name)
    return report


def _begun(
    place: Workspace, images: StrPath, options: RunOptions, overwrite: bool, quiet: bool, on_progress: OnProgress | None
) -> Job:
    """A job over a folder of photographs or a video."""
    chosen, progress = options.extract, partial(Progress, quiet=quiet, on_progress=on_progress)
    sampling = Sampling(chosen.fps, chosen.frames)
    collection = refresh_collection(place, Path(images), chosen.masks, sampling, overwrite=overwrite, progress=progress)
    return Job(place, collection, options, overwrite, quiet, on_progress)


def _chosen(command: str, group: type[T], options: T | None, keywords: Mapping[str, object]) -> T:
    chosen = group.from_mapping(options_of(command, [group], keywords), options)
    chosen.check_for(command)
    return chosen


def _folder(workspace: StrPath, options: ExtractOptions | MatchOptions | ImportOptions) -> Path:
    """Of a job. Workers of a cluster work in folders of their own, and are told the whole path."""
    return Path(workspace) if options.ray is None else Path(workspace).absolute()


def _part(command: str, part: str | None) -> str | None:
    """What a process that does a part calls itself in the workspace."""
    return None if part is None else f"{command}-{part.replace('/', '-of-')}"


@contextmanager
def _opened(workspace: StrPath, part: str | None = None) -> Iterator[tuple[Workspace, Collection]]:
    folder = Path(workspace)
    if not folder.is_dir():
        raise NothingDone(f"--workspace {folder}: no such folder; run `sfm-match extract --images DIR` first")
    with Workspace(folder, part=part) as place:
        yield place, Collection.load(place)
