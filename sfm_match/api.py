"""The commands as Python functions: same names, same options, one `StageReport` a stage."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sfm_match.errors import NothingDone, UsageError, nearest
from sfm_match.images.collection import Collection, look
from sfm_match.job.progress import StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.options.base import Options, run_name
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import (
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    ReconstructOptions,
)

StrPath = str | Path
T = TypeVar("T", bound=Options)
RUN_OPTIONS = [run_name(f) for group in GROUPS for f in dataclasses.fields(group)]


def extract(
    images: StrPath, workspace: StrPath = "workspace", *, overwrite: bool = False, quiet: bool = True, **options: Any
) -> StageReport:
    """Features of every image under `images`; options are the fields of `ExtractOptions`."""
    chosen = _chosen(ExtractOptions, options)
    with Workspace(Path(workspace)) as place:
        from sfm_match.stages.extract import extract_features, load_only

        collection = look(place, Path(images), chosen.masks, overwrite=overwrite)
        if chosen.dummy_network:
            return load_only(collection, chosen, quiet=quiet)
        return extract_features(place, collection, chosen, overwrite=overwrite, quiet=quiet)


def pairs(
    workspace: StrPath = "workspace",
    images: StrPath | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    **options: Any,
) -> StageReport:
    """Writes `pairs.txt`, or adds the pairs of a second round; options are the fields of `PairsOptions`."""
    from sfm_match.stages.pairs import write_pairs

    chosen = _chosen(PairsOptions, options)
    with Workspace(Path(workspace)) as place:
        if images is None:
            collection = Collection.load(place)
        else:
            masks = Collection.load(place).masks if place.collection.exists() else None
            collection = look(place, Path(images), masks, overwrite=overwrite)
        report = write_pairs(place, collection, chosen, overwrite=overwrite, quiet=quiet)
        collection.save(place)
        return report


def match(
    workspace: StrPath = "workspace", *, overwrite: bool = False, quiet: bool = True, **options: Any
) -> StageReport:
    """Matches of every pair of `pairs.txt`; options are the fields of `MatchOptions`."""
    from sfm_match.stages.match import match_pairs

    chosen = _chosen(MatchOptions, options)
    with _standing(workspace) as (place, collection):
        return match_pairs(place, collection, chosen, overwrite=overwrite, quiet=quiet)


def import_(
    workspace: StrPath = "workspace", *, overwrite: bool = False, quiet: bool = True, **options: Any
) -> StageReport:
    """Builds and verifies `database.db`; options are the fields of `ImportOptions`."""
    from sfm_match.stages.import_ import import_to_colmap

    chosen = _chosen(ImportOptions, options)
    with _standing(workspace) as (place, collection):
        return import_to_colmap(place, collection, chosen, overwrite=overwrite, quiet=quiet)


def reconstruct(workspace: StrPath = "workspace", *, overwrite: bool = False, **options: Any) -> StageReport:
    """Builds `sparse/0` ...; options are the fields of `ReconstructOptions`."""
    from sfm_match.stages.reconstruct import reconstruct_model

    chosen = _chosen(ReconstructOptions, options)
    if chosen.mapper == "none":
        raise UsageError("--mapper none: belongs to `run`; accepted here are incremental, global")
    with _standing(workspace) as (place, collection):
        return reconstruct_model(place, collection, chosen, overwrite=overwrite)


def run(
    images: StrPath,
    workspace: StrPath = "workspace",
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_report: Callable[[StageReport], None] = lambda _: None,
    **options: Any,
) -> list[StageReport]:
    """All stages; what stands is not computed again.

    Args:
        images: folder of photographs.
        workspace: folder of the job.
        overwrite: replace results of other options.
        quiet: no progress.
        on_report: called as each stage ends.
        **options: of every stage, by the names that `run` uses (`pairs` for the strategy, `match_threshold`, ...).
    """
    from sfm_match.colmap.cameras import plan_cameras
    from sfm_match.stages.extract import extract_features
    from sfm_match.stages.import_ import described_headers, import_to_colmap
    from sfm_match.stages.match import current_features, match_pairs
    from sfm_match.stages.pairs import write_pairs
    from sfm_match.stages.reconstruct import reconstruct_model

    # every stage's options are checked before the first stage begins
    chosen = options_of_run(options)
    extracting, pairing, matching, importing, mapping = chosen
    reports: list[StageReport] = []

    def note(report: StageReport) -> None:
        reports.append(report)
        on_report(report)

    with Workspace(Path(workspace)) as place:
        collection = look(place, Path(images), extracting.masks, overwrite=overwrite)
        refuse_early(place, collection, chosen, overwrite=overwrite)
        extracted = extract_features(place, collection, extracting, overwrite=overwrite, quiet=quiet)
        described = described_headers(collection, current_features(place, collection))
        plan_cameras(described, importing)  # sizes that differ, images that failed left out
        usable = extracted.facts["total"]
        if usable < 2 and extracted.failed:  # what could be done was done; failed.csv says why it is so little
            extracted.detail = f"{usable} usable image, a pair needs two: stopped here"
            note(extracted)
            return reports
        note(extracted)
        note(write_pairs(place, collection, pairing, overwrite=overwrite, quiet=quiet))
        note(match_pairs(place, collection, matching, overwrite=overwrite, quiet=quiet))
        note(import_to_colmap(place, collection, importing, overwrite=overwrite, quiet=quiet))
        if mapping.mapper != "none":
            note(reconstruct_model(place, collection, mapping, overwrite=overwrite))
    return reports


class RunOptions(NamedTuple):
    """Of every stage."""

    extract: ExtractOptions
    pairs: PairsOptions
    match: MatchOptions
    import_: ImportOptions
    reconstruct: ReconstructOptions


def refuse_early(place: Workspace, collection: Collection, chosen: RunOptions, *, overwrite: bool) -> None:
    """Raises what the later stages would raise and can be known now, not after hours of matching."""
    from sfm_match.colmap.cameras import check_camera_model
    from sfm_match.stages.import_ import refuse_foreign_database
    from sfm_match.stages.match import match_facts
    from sfm_match.stages.pairs import check_pairs
    from sfm_match.stages.reconstruct import refuse_foreign_models

    importing, mapping = chosen.import_, chosen.reconstruct
    if len(collection.usable) >= 2:
        check_pairs(place, collection, chosen.pairs, overwrite=overwrite)
    place.check("match", match_facts(chosen.match, chosen.extract.model), overwrite=overwrite)
    place.check("import", importing.identity(), overwrite=overwrite)
    refuse_foreign_database(place, overwrite=overwrite)
    if mapping.mapper != "none":
        place.check("reconstruct", mapping.identity(), overwrite=overwrite)
        refuse_foreign_models(place, overwrite=overwrite)
    if importing.camera_model != ImportOptions.camera_model or importing.camera_params is not None:
        check_camera_model(importing)


def options_of_run(options: dict[str, Any]) -> RunOptions:
    """Of each stage, from the names that `run` uses.

    Raises:
        UsageError: an unknown name, or a value that is not accepted.
    """
    for name in options:
        if name not in RUN_OPTIONS:
            raise UsageError(f"run: unknown option '{name}'{nearest(name, RUN_OPTIONS)}")
    chosen = RunOptions(
        ExtractOptions.from_mapping(options),
        PairsOptions.from_mapping(options),
        MatchOptions.from_mapping(options),
        ImportOptions.from_mapping(options),
        ReconstructOptions.from_mapping(options),
    )
    if chosen.extract.dummy_network:
        raise UsageError("--dummy-network: belongs to `extract`")
    return chosen


def _chosen(group: type[T], options: dict[str, Any]) -> T:
    known = [f.name for f in dataclasses.fields(group)]
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option '{name}'{nearest(name, known)}; accepted are {', '.join(known)}")
    return group(**options)


@contextmanager
def _standing(workspace: StrPath) -> Iterator[tuple[Workspace, Collection]]:
    folder = Path(workspace)
    if not folder.is_dir():
        raise NothingDone(f"--workspace {folder}: no such folder; run `sfm-match extract --images DIR` first")
    with Workspace(folder) as place:
        yield place, Collection.load(place)
