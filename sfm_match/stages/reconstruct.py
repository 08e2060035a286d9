"""`sparse/0 ...`: the models of a job, written under a temporary name, then renamed; and what is not in them."""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sfm_match.colmap.cameras import all_given
from sfm_match.colmap.colours import colour_points
from sfm_match.colmap.components import components
from sfm_match.colmap.database_check import check_database
from sfm_match.colmap.exif_doubt import headers_without
from sfm_match.colmap.georeference import georeference, reference_of
from sfm_match.colmap.growth import FROM, brought_up_to
from sfm_match.colmap.known_poses import UNKNOWN, triangulate
from sfm_match.colmap.mapper import ALGORITHM, Mapped, map_components, registered
from sfm_match.colmap.model_check import load
from sfm_match.colmap.model_io import digests
from sfm_match.colmap.plausibility import judge
from sfm_match.colmap.queries import (
    Counts,
    DatabaseError,
    as_database_error,
    content_digest,
    count,
    image_names,
    read_record,
    switch_log_off,
    switch_log_on,
)
from sfm_match.colmap.rigs import recorded_rigs, with_places_of
from sfm_match.colmap.unregistered import reasons
from sfm_match.errors import NothingDone, quoted
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.images.reasons import read_failed, write_reasons
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.options.stages import ReconstructOptions
from sfm_match.signals import removed_if_stopped
from sfm_match.stages.base import Job
from sfm_match.stages.database_state import as_left, note_left
from sfm_match.stages.earlier_models import move_aside_if_damaged, read_summary, refuse_foreign_models
from sfm_match.stages.model_lines import model_lines, placed
from sfm_match.store.model_record import NAME as _SUMMARY
from sfm_match.store.model_record import changed, digests_below
from sfm_match.store.records import sealed
from sfm_match.store.shard import commit, fingerprint, remove_leftovers, temporary_name, write_text

if TYPE_CHECKING:
    import pycolmap

_REFERENCE = "reference_lla.json"  # in the folder of a model that is georeferenced: OpenSfM's name and content
_SHOWN = 4  # folders of a model, models of a job, kinds of reasons


@dataclass(frozen=True)
class ModelSummary:
    """The numbers of one model, and what speaks against it."""

    registered: int  # images
    points: int
    track_length: float  # mean observations of a point
    reprojection_error: float  # mean, pixels
    holds: str  # which images, by their folders
    gps: str | None  # how far from GPS, in words
    georeference: dict[str, Any] | None  # the facts of `georeference.Georeference`; None where it has the mapper's axes
    plausibility: dict[str, Any]  # the facts of `plausibility.Plausibility`
    odd: list[str]  # what speaks against it


@dataclass(frozen=True)
class Outcome:
    """Of a reconstruction."""

    models: list[ModelSummary]  # largest first
    registered: int  # images in any model
    unregistered: dict[str, int]  # kind of reason -> images
    contradicted: dict[str, str] = field(default_factory=dict)  # images whose EXIF's focal length was left out


def check(job: Job) -> None:
    """Raises UsageError for models of other options or of somebody else."""
    job.workspace.check("reconstruct", job.options.reconstruct.inputs(), overwrite=job.overwrite)
    refuse_foreign_models(job.workspace, overwrite=job.overwrite)


def status(job: Job) -> int:
    """Images that an earlier run registered."""
    return int(read_summary(job.workspace.sparse).get("registered", 0))


def run(job: Job) -> StageReport:
    """Runs the mapper, unless its models are up to date with this database and these options.

    Raises:
        UsageError: options that differ from before, or files in `sparse/` that are not ours.
        NothingDone: no database, or no model that is earned.
    """
    workspace, collection, options, clock = job.workspace, job.collection, job.options.reconstruct, Clock()
    inputs = read_record(workspace.database, "inputs")
    if inputs is None:
        raise NothingDone(f"{workspace.folder}: no database yet; run `sfm-match import` first")
    check(job)
    edited = check_database(workspace.database)
    content = content_digest(workspace.database)
    known = options.known_poses
    digest = fingerprint([options.inputs(), inputs, content, digests(known) if known is not None else {}, ALGORITHM])
    counts = count(workspace.database)
    if not job.overwrite:
        move_aside_if_damaged(workspace)
    outcome = None if job.overwrite else _read_outcome(workspace.sparse, digest)
    if outcome is not None:
        workspace.write_record("reconstruct", options.inputs())
        return _report(outcome, counts, options, len(collection.records), clock, computed=False, edited=edited)
    if not collection.folder.is_dir():
        raise NothingDone(f"{collection.folder}: the images are gone; the mapper reads the points' colours from them")
    headers = _headers(workspace.database, collection)
    _check_writable(workspace.database)
    with _unfinished(workspace) as temporary:
        with _colmap_errors(workspace.database):
            switch_log_on(workspace.database)
            if known is not None:
                mapped = triangulate(workspace.database, collection.folder, options, temporary, clock)
            else:
                standing = [] if job.overwrite or edited else _standing(workspace, options)
                mapped = _mapped(job, headers, temporary, clock, standing)
        with clock.on("write"):
            outside = _outside(workspace, collection, mapped, options)
            table = {name: f"{kind}: {text}" for name, (kind, text) in outside.items()}
            write_reasons(workspace, workspace.unregistered, table)
            if not mapped.models:
                raise NothingDone(_no_model(workspace, counts, options))
            colour_points(mapped.models, collection.folder)
            given = known is not None or all_given(workspace.database)
            trusted = headers_without(headers, mapped.contradicted)
            align = options.align_to_gps and known is None
            models = _write(mapped, temporary, trusted, given=given, align=align)
            inside = set().union(*map(registered, mapped.models))
            kinds = dict(Counter(kind for kind, _ in outside.values()))
            outcome = Outcome(models, len(inside), kinds, mapped.contradicted)
            summary = {
                "inputs": digest,
                "database": inputs,
                "options": options.inputs(),
                "files": digests_below(temporary),
                **asdict(outcome),
            }
            write_text(temporary / _SUMMARY, json.dumps(sealed(summary)))
            workspace.write_record("reconstruct", options.inputs())
            if workspace.sparse.exists():
                workspace.sparse.rename(workspace.folder / temporary_name("sparse", "old"))
            commit(temporary, workspace.sparse)
    return _report(outcome, counts, options, len(collection.records), clock, computed=True, edited=edited)


@contextmanager
def _unfinished(workspace: Workspace) -> Iterator[Path]:
    """An empty folder, to be renamed to `sparse`, or not to stay."""
    temporary, was_left = workspace.folder / temporary_name("sparse"), as_left(workspace)
    temporary.mkdir()
    with removed_if_stopped(temporary):
        try:
            yield temporary
        finally:
            remove_leftovers(workspace.folder)
            with suppress(sqlite3.Error):  # another program has it open
                switch_log_off(workspace.database)
                if was_left:  # COLMAP switches the log on, which changes the file's time
                    note_left(workspace)


def _mapped(
    job: Job,
    headers: Mapping[str, Header],
    output: Path,
    clock: Clock,
    standing: list["pycolmap.Reconstruction"],
) -> Mapped:
    """By the mapper. Where cameras' places on their rigs are not known: first without rigs, which tells the places."""
    database, images, options = job.workspace.database, job.collection.folder, job.options.reconstruct
    mapped = map_components(database, images, headers, options, output, clock, standing, job.progress)
    rigs = recorded_rigs(database, headers)
    if not rigs or not mapped.models:
        return mapped
    as_rigs = with_places_of(mapped.models[0], rigs, database, output / "rigs.db")
    return map_components(as_rigs, images, headers, options, output, clock, progress=job.progress)


def _standing(workspace: Workspace, options: ReconstructOptions) -> list["pycolmap.Reconstruction"]:
    """The models of an earlier run, if they are of the database that this one grew from, and of the same options."""
    summary = read_summary(workspace.sparse)
    if summary.get("database") != read_record(workspace.database, FROM) or summary.get("options") != options.inputs():
        return []
    if changed(workspace.sparse, summary.get("files", {})):
        return []
    models = [load(workspace.sparse / str(n)) for n in range(len(summary["models"]))]
    return [model for one in models if (model := brought_up_to(one, workspace.database)) is not None]


def _outside(
    workspace: Workspace, collection: Collection, mapped: Mapped, options: ReconstructOptions
) -> dict[str, tuple[str, str]]:
    """Image -> kind of reason and the reason itself, of those that are in no model."""
    inside = set().union(*map(registered, mapped.models)) if mapped.models else set()
    failed = {name: why for name, why in read_failed(workspace).items() if name in collection.records}
    outside = {name: ("not usable", why) for name, why in failed.items()}
    others = reasons(workspace.database, inside, mapped.dropped, options.min_model_size)
    if options.known_poses is not None:
        others = dict.fromkeys(others, (UNKNOWN, f"not in {options.known_poses}"))
    return outside | others


def _no_model(workspace: Workspace, counts: Counts, options: ReconstructOptions) -> str:
    """In a line, why."""
    names = image_names(workspace.database)
    largest = next((len(one.names) for one in components(workspace.database, names, 1)), 0)
    told = f"{counts.verified:,} of {counts.pairs:,} pairs are accepted"
    if counts.verified == 0:
        why = (
            f"no model: no pair of {counts.pairs:,} is accepted, these {counts.images:,} images have nothing in common"
        )
    elif largest < options.min_model_size:
        why = f"no model: {told}, which connect {largest} images at most, and a model needs {options.min_model_size}"
    else:
        why = f"no model: {told}, which connect {largest} images, but their geometry does not hold together"
    return f"{workspace.folder}: {why} (each image's reason: {workspace.unregistered.name})"


def _headers(database: Path, collection: Collection) -> dict[str, Header]:
    """Of the images in the database."""
    names = image_names(database)
    strange = next((name for name in names if name not in collection.usable), None)
    if strange is not None:
        raise NothingDone(
            f"{database}: image {quoted(strange)} is not one of {collection.folder}; "
            "run `sfm-match import --overwrite`, which builds it anew"
        )
    return {name: collection.usable[name] for name in names}


def _check_writable(database: Path) -> None:
    """COLMAP opens a database for writing. Raises DatabaseError where it cannot."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        raise as_database_error(database, error) from error


@contextmanager
def _colmap_errors(database: Path) -> Iterator[None]:
    """What COLMAP raises, in a line."""
    try:
        yield
    except sqlite3.Error as error:  # a copy of it that does not fit on the disk
        raise as_database_error(database, error) from error
    except (RuntimeError, MemoryError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DatabaseError(f"{database}: COLMAP cannot map it ({said})") from error


def _write(mapped: Mapped, folder: Path, headers: dict[str, Header], *, given: bool, align: bool) -> list[ModelSummary]:
    for stale in folder.iterdir():  # the mapper's own numbering
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    summaries = []
    reference = reference_of(headers) if align else None
    for number, model in enumerate(mapped.models):
        path = folder / str(number)
        path.mkdir()
        seen = judge(model, headers, mapped.models[:number], known_intrinsics=given)
        placed = georeference(model, headers, reference) if reference is not None else None
        if placed is not None:
            write_text(path / _REFERENCE, json.dumps(asdict(placed.reference)) + "\n")
        model.write(str(path))
        model.export_PLY(str(path / "points.ply"))
        facts = asdict(seen)
        odd = list(facts.pop("odd"))
        summaries.append(
            ModelSummary(
                model.num_reg_images(),
                model.num_points3D(),
                round(model.compute_mean_track_length(), 3),
                round(model.compute_mean_reprojection_error(), 4),
                described(registered(model), headers),
                seen.gps_line(),
                asdict(placed) if placed is not None else None,
                facts,
                odd,
            )
        )
    return summaries


def described(names: Iterable[str], everyone: Iterable[str]) -> str:
    """Some images of a collection in a few words: their folders, or the first and the last name of a flat one."""
    chosen, folders = sorted(names), {name.rpartition("/")[0] for name in everyone}
    if len(folders) == 1:
        return f"{chosen[0]} ... {chosen[-1]}"
    parts = Counter(name.rpartition("/")[0] or "." for name in chosen).most_common()
    shown = [f"{folder}" + (f" ({number})" if len(parts) > 1 else "") for folder, number in parts[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(parts) - _SHOWN} more folders" if len(parts) > _SHOWN else "")


def _read_outcome(sparse: Path, digest: str) -> Outcome | None:
    """What an earlier run gave, when it is of these inputs and all its files are as it wrote them."""
    stored = read_summary(sparse)
    if stored.get("inputs") != digest or changed(sparse, stored["files"]):
        return None
    try:
        return msgspec.convert(stored, Outcome)
    except msgspec.ValidationError:
        return None


def _report(
    outcome: Outcome,
    counts: Counts,
    options: ReconstructOptions,
    images: int,
    clock: Clock,
    *,
    computed: bool,
    edited: bool,
) -> StageReport:
    best = outcome.models[0]
    parts = [
        f"{outcome.registered}/{counts.images} images registered, {best.points:,} points, "
        f"track length {best.track_length:.2f}, reprojection error {best.reprojection_error:.2f} px"
    ]
    if len(outcome.models) > 1:
        every = [f"{model.registered} images of {model.holds}" for model in outcome.models]
        parts[0] += " in the first model"
        more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
        parts.append(f"{len(every)} models: {'; '.join(every[:_SHOWN])}{more}")
    parts += [f"model {number}: {placed(one)}" for number, one in enumerate(outcome.models) if one.gps]
    parts += [
        f"model {number} is NOT TO BE TRUSTED: {'; '.join(m.odd)}" for number, m in enumerate(outcome.models) if m.odd
    ]
    if outcome.unregistered:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in outcome.unregistered.items())
        parts.append(f"{sum(outcome.unregistered.values()):,} images in no model ({kinds}): unregistered.csv")
    told = list(model_lines(outcome.models, outcome.registered, counts.images, outcome.unregistered))
    more_said = []
    if outcome.contradicted:
        said = [f"{quoted(name)} ({what})" for name, what in sorted(outcome.contradicted.items())]
        more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        more_said.append(
            f"EXIF's focal length contradicts the matches and is not used: {', '.join(said[:_SHOWN])}{more}"
        )
    if edited:
        more_said.append("database.db was changed since import, and the model is that of the changed one")
    too_few = outcome.registered < options.min_registered * images
    if too_few:
        share = outcome.registered / images
        more_said.append(
            f"{share:.0%} of the images are registered, fewer than --min-registered {options.min_registered:g}"
        )
    return StageReport(
        "reconstruct",
        "images",
        done=outcome.registered if computed else 0,
        cached=0 if computed else outcome.registered,
        seconds=clock.seconds,
        spent=clock.spent,
        detail="; ".join(parts + more_said),
        told=told + more_said,
        facts={
            **asdict(best),
            "registered": outcome.registered,
            "total": counts.images,
            "models": len(outcome.models),
            "each_model": [asdict(model) for model in outcome.models],
            "unregistered": outcome.unregistered,
            "contradicted": outcome.contradicted,
            "too_few": too_few,
            "database_changed": edited,
        },
    )
