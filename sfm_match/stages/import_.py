"""`database.db`: cameras, rigs, frames, images, keypoints, matches and verified geometries, built whole, then renamed.

While it is built it is `database.db.partial`. A kill during verification costs nothing but the pairs in hand: the
partial database carries the digest of what it was built from, and pairs with a verdict are passed over. Then keypoints
are adjusted (`refine.keypoints`), which resumes where it stopped, too.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfm_match.colmap.assigned import NOTHING_ASSIGNED, read_assigned
from sfm_match.colmap.assigned import RECORD as CAMERAS
from sfm_match.colmap.cameras import GIVEN, CameraPlan, check_camera_model, plan_cameras
from sfm_match.colmap.database import write_images
from sfm_match.colmap.database_check import check_database
from sfm_match.colmap.given_cameras import read_given_cameras
from sfm_match.colmap.growth import SETTINGS, TAKEN, Earlier, earlier_of, take_over, write_signatures
from sfm_match.colmap.queries import (
    Counts,
    DamagedDatabase,
    DatabaseError,
    as_database_error,
    count,
    is_edited,
    is_ours,
    read_record,
    read_value,
    remove_journals,
    seal,
    write_records,
)
from sfm_match.colmap.rigs import RECORD as RIGS_WITHOUT_PLACES
from sfm_match.colmap.rigs import apply_rigs, has_places, read_rigs, rig_cameras
from sfm_match.colmap.verification import (
    How,
    Judging,
    is_verified,
    judging_of,
    verdicts,
    verification_work,
    verify_pairs,
)
from sfm_match.errors import NothingDone, SfmMatchError, UsageError, quoted
from sfm_match.images.files import signature_of
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.matching.acceptance import Verdict
from sfm_match.options.stages import ImportOptions
from sfm_match.refine.keypoints import adjust_keypoints, adjusted_before, clear
from sfm_match.stages.base import Job, ray_pool
from sfm_match.stages.database_state import as_left, note_left
from sfm_match.stages.listed_matches import iter_matches
from sfm_match.stages.state import iter_features
from sfm_match.stages.verify_units import verify_by_workers
from sfm_match.store.shard import commit, fingerprint, set_aside, sha256_of

if TYPE_CHECKING:
    from sfm_match.job.ray_workers import RayPool

_COUNTED = "counted"  # record: what a finished database holds
_BUILT = "built from"  # record of a database that is not finished: its images and what it grew from are there
ALGORITHM = 5  # raise it when the same matches and options come to give another database


def check(job: Job) -> None:
    """Raises UsageError for a database of other options or of somebody else, and for cameras that cannot be."""
    options, workspace = job.options.import_, job.workspace
    workspace.check("import", options.inputs(), overwrite=job.overwrite)
    if not job.overwrite:
        _refuse_foreign_database(workspace)
    if options.camera_model != ImportOptions.camera_model or options.camera_params is not None:
        check_camera_model(options)
    if options.rig_config is not None:
        read_rigs(options.rig_config, job.collection.usable)
    if options.cameras is not None:
        read_given_cameras(options.cameras, job.collection.usable, options.camera_model)
    may_differ = options.camera_mode in ("single", "per-folder") or options.rig_config or options.cameras
    if job.found_features is not None and may_differ:  # then it is known which images failed, and need no camera
        _cameras(job)


def status(job: Job) -> int:
    """Pairs of the database."""
    database = job.workspace.database
    with suppress(DatabaseError):  # a damaged one is built again
        return _counted(job.workspace)[0].pairs if read_record(database, "inputs") is not None else 0
    return 0


def run(job: Job) -> StageReport:
    """Builds the database, unless it is up to date with these features, matches and options.

    Raises:
        UsageError: an unknown camera model, a wrong number of parameters, or options that differ from before.
        NothingDone: no matches.
    """
    workspace, options, clock = job.workspace, job.options.import_, Clock()
    inputs = options.inputs()
    workspace.check("import", inputs, overwrite=job.overwrite)
    digest, settings = _digests(job)
    if not job.overwrite:
        _refuse_foreign_database(workspace)
    if not as_left(workspace):
        _move_aside_if_damaged(workspace)
    if not job.overwrite and read_record(workspace.database, "inputs") == digest:
        workspace.write_record("import", inputs)
        if not as_left(workspace) and not is_edited(workspace.database):  # it was moved, or touched
            note_left(workspace)
        return _report(workspace, options, clock, computed=False)
    if options.verify and options.adjust_keypoints and not job.collection.folder.is_dir():
        raise NothingDone(
            f"{job.collection.folder}: the images are gone; keypoints are adjusted by them "
            "(--no-adjust-keypoints does not)"
        )
    _tell_of_changed_images(job)
    partial = workspace.database.with_name(workspace.database.name + ".partial")
    earlier = None if job.overwrite or not options.verify else earlier_of(workspace.database, settings)
    with _database_errors(partial):
        _build(job, partial, Origin(digest, settings, earlier), clock)
    # before the rename: a database is never there without its options on record
    workspace.write_record("import", inputs)
    remove_journals(workspace.database)  # of a database that is replaced: SQLite would apply them to the new one
    commit(partial, workspace.database)
    note_left(workspace)
    clear(workspace.aligned)
    return _report(workspace, options, clock, computed=True)


def _digests(job: Job) -> tuple[str, str]:
    """Of everything that the database is built from; and of the settings alone. Raises NothingDone: no matches."""
    features, matches, inputs = job.features, job.matches, job.options.import_.inputs()
    pairs = sha256_of(job.workspace.pairs)
    whole = fingerprint([inputs, matches.fingerprint, pairs, features.signed(), ALGORITHM])
    return whole, fingerprint([inputs, matches.fingerprint, ALGORITHM])


def _tell_of_changed_images(job: Job) -> None:
    """A line where photographs are not those whose features were made: keypoints are adjusted by them."""
    folder = job.collection.folder
    if not folder.is_dir():
        return
    signatures = job.features.signatures.items()
    changed = [name for name, was in signatures if not was.startswith(signature_of(folder / name))]
    if changed:
        gone = sum(not (folder / name).exists() for name in changed)
        more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        LOGGER.warning(
            "%s: %s%s changed since their features were made (%d deleted); `sfm-match run --images %s` looks again",
            folder,
            quoted(changed[0]),
            more,
            gone,
            quoted(folder),
        )


@dataclass(frozen=True)
class Origin:
    """What a database is built from."""

    digest: str  # of everything
    settings: str  # of everything but the images and the list of pairs
    earlier: Earlier | None  # of the same settings: it is grown

    @property
    def recorded(self) -> str:
        """In the database, while it is built: what a killed import left is taken up if it is the same."""
        return self.digest if self.earlier is None else fingerprint([self.digest, self.earlier.inputs])


def _build(job: Job, partial: Path, origin: Origin, clock: Clock) -> None:
    """Everything that a killed import left is taken up where it stopped."""
    options = job.options.import_
    give_memory_back()  # what was held to find out what is there
    if _built_from(partial) != origin.recorded:
        _write_images(job, partial, origin, clock)
        give_memory_back()
    how = How(options.verify, options.accept_pairs == "all", job.features.rotations)
    pool = ray_pool(options.ray if options.verify else None, None)
    with clock.on("verify" if options.verify else "write"):
        if not is_verified(partial):
            _verify(job, partial, judging_of(partial, how), pool)
    if options.verify and options.adjust_keypoints and adjusted_before(partial) is None:
        with clock.on("adjust"):
            _adjust(job, partial, origin, pool)
    with closing(sqlite3.connect(partial)) as connection, connection:
        write_records(connection, {_COUNTED: json.dumps([asdict(count(partial)), verdicts(partial)])})
    seal(partial)


def _verify(job: Job, partial: Path, judging: Judging, pool: "RayPool | None") -> None:
    """Pairs that have no verdict get theirs."""
    features, matches, verify = job.features, job.matches, judging.how.verify
    # without verification all pairs cost alike, and their matches are not read for it
    work = verification_work(iter_matches(matches, features), judging) if verify else None
    with closing(job.progress("verify" if verify else "import", len(matches.pairs), "pairs", work)) as progress:
        if pool is None:
            verify_pairs(partial, iter_matches(matches, features), judging, progress.advance)
        else:
            verify_by_workers(partial, matches, features, judging, progress.advance, pool)


def _adjust(job: Job, partial: Path, origin: Origin, pool: "RayPool | None") -> None:
    """Keypoints of the accepted pairs are moved."""
    inputs = job.features.inputs
    job.found_features = job.found_matches = None  # of very many images they are large; who needs them finds them again
    adjust_keypoints(
        partial,
        job.collection,
        job.workspace.aligned,
        origin.digest,
        size=inputs["size"],
        reduced=inputs.get("reduced_decode", False),
        progress=job.progress,
        earlier=origin.earlier,
        pool=pool,
    )


def _write_images(job: Job, partial: Path, origin: Origin, clock: Clock) -> None:
    """Cameras, images and keypoints; of the pairs, what the earlier database knows."""
    options, features, matches = job.options.import_, job.features, job.matches
    partial.unlink(missing_ok=True)
    remove_journals(partial)
    check_camera_model(options)
    cameras = _cameras(job)
    keypoints = ((name, one.keypoints) for name, one in iter_features(features, descriptors=False))
    with clock.on("write"):
        headers = features.headers(job.collection)
        write_images(partial, cameras, keypoints, headers)
        rigs = _write_rigs(partial, options, headers)
        with closing(sqlite3.connect(partial)) as connection, connection:
            keys = json.dumps({camera.number: camera.key for camera in cameras})
            records = {"options": _recorded(options), "inputs": origin.digest, SETTINGS: origin.settings}
            records[GIVEN] = json.dumps([camera.number for camera in cameras if camera.params is not None])
            write_signatures(connection, features.signatures)
            write_records(connection, {**records, CAMERAS: keys, **rigs})
        if origin.earlier is not None:
            take_over(partial, origin.earlier, matches.pairs, matches.names)
        with closing(sqlite3.connect(partial)) as connection, connection:
            write_records(connection, {_BUILT: origin.recorded})


def _built_from(partial: Path) -> str | None:
    """What a killed import left is of; None where it left nothing that can be read."""
    with suppress(DamagedDatabase):
        return read_record(partial, _BUILT)
    return None


def _write_rigs(database: Path, options: ImportOptions, names: Iterable[str]) -> dict[str, str]:
    """Writes the rigs whose cameras' places are known. Records: the others, which the mapper has to find."""
    if options.rig_config is None:
        return {}
    rigs = read_rigs(options.rig_config, names)
    if not has_places(rigs):
        return {RIGS_WITHOUT_PLACES: options.rig_config.read_text(encoding="utf-8")}
    apply_rigs(rigs, database, options.rig_config)
    return {}


def _cameras(job: Job) -> list[CameraPlan]:
    """With the numbers of the database that is replaced, unless all is to be made anew."""
    options = job.options.import_
    before = NOTHING_ASSIGNED
    if not job.overwrite:
        with suppress(DamagedDatabase):  # it will be moved aside
            before = read_assigned(job.workspace.database, _recorded(options))
    headers = job.features.headers(job.collection)
    rigs = read_rigs(options.rig_config, headers) if options.rig_config is not None else []
    file, model = options.cameras, options.camera_model
    given = read_given_cameras(file, headers, model) if file is not None else []
    return plan_cameras(headers, options, before, rig_cameras(rigs), given)


def _recorded(options: ImportOptions) -> str:
    return json.dumps(options.inputs())


def _refuse_foreign_database(workspace: Workspace) -> None:
    """Raises UsageError where somebody else's database is in the place of ours."""
    database = workspace.database
    if not database.exists():
        return
    try:
        ours = is_ours(database)
    except DamagedDatabase:
        ours = "import" in workspace.read_record()
    if not ours:
        raise UsageError(
            f"{database}: not made by sfm-match; choose another --workspace, or add --overwrite to replace it"
        )


def _move_aside_if_damaged(workspace: Workspace) -> None:
    """So that it is built again. Raises DatabaseError where it is in use, or of a newer COLMAP."""
    database = workspace.database
    if not database.exists():
        return
    try:
        check_database(database)
        if read_record(database, "inputs") is None:
            raise DamagedDatabase(database, "its records are gone")
    except DamagedDatabase as error:
        aside = set_aside(database)
        remove_journals(database)
        LOGGER.warning("%s: damaged (%s); moved to %s and built again", database, error.reason, aside.name)


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """What pycolmap and SQLite raise (a full disk, mostly) in a line."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_database_error(path, error) from error
    except RuntimeError as error:
        raise SfmMatchError(f"{path}: {error} (a full disk?)") from error


def _counted(workspace: Workspace) -> tuple[Counts, dict[str, int]]:
    """What the database holds, and its pairs by their verdicts. Raises DatabaseError."""
    database = workspace.database
    known = read_value(database, _COUNTED, tuple[Counts, dict[str, int]]) if as_left(workspace) else None
    return known or (count(database), verdicts(database))


def _report(workspace: Workspace, options: ImportOptions, clock: Clock, *, computed: bool) -> StageReport:
    database, (counts, judged) = workspace.database, _counted(workspace)
    adjusted = adjusted_before(database)
    detail = f"{counts.images:,} images, " + (f"{counts.verified:,} verified" if options.verify else "not verified")
    facts: dict[str, Any] = counts.numbers()
    told = [detail]
    if judged:
        facts["verdicts"] = judged
        detail = f"{counts.images:,} images, {judged.get(Verdict.ACCEPTED, 0):,} pairs accepted"
        others = {why: f"{number:,} {why}" for why, number in judged.items() if why != Verdict.ACCEPTED}
        told = [detail, *([f"rejected: {'; '.join(others.values())}"] if others else [])]
        detail += f" (rejected: {', '.join(others.values())})" if others else ""
    if adjusted is not None:
        detail += f", {adjusted.line()}"
        told += [adjusted.line()] if adjusted.keypoints or adjusted.unreadable else []
        facts["adjusted"] = asdict(adjusted)
    if not computed and not as_left(workspace) and is_edited(database):
        changed = "database.db was changed since, and stays so until --overwrite builds it anew"
        detail += f"; {changed}"
        told.append(changed)
    taken = int(read_record(database, TAKEN) or 0) if computed else counts.pairs
    return StageReport(
        "import",
        "pairs",
        done=counts.pairs - taken,
        cached=taken,
        seconds=clock.seconds,
        spent=clock.spent,
        detail=detail,
        facts=facts,
        told=told,
    )
