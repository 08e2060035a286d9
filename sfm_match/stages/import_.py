"""`database.db`: cameras, rigs, frames, images, keypoints, matches and verified geometries, built whole, then renamed.

While it is built it is `database.db.partial`. A kill during verification costs nothing but the pairs in hand: the
partial database carries the digest of what it was built from, and COLMAP passes over the pairs it has verified. Then
keypoints are adjusted (`adjustment`), which goes on where it was, too.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfm_match.colmap.cameras import CameraPlan, check_camera_model, plan_cameras
from sfm_match.colmap.queries import count, read_note, write_notes
from sfm_match.colmap.verification import NamedMatches, verdicts, verify, write_matches
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.features.extractor import TURNS
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.job.progress import Clock, Progress, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.matching.acceptance import Verdict
from sfm_match.options.stages import ImportOptions
from sfm_match.refine.keypoints import adjust_keypoints, adjusted_before, clear
from sfm_match.stages.extract import FeatureSet
from sfm_match.stages.match import current_features, iter_matches, standing_matches
from sfm_match.store.features import read_features, unit_path
from sfm_match.store.shard import commit, fingerprint, sha256_of

if TYPE_CHECKING:
    import pycolmap

ALGORITHM = 2  # raise it when the same matches and options come to give another database


def import_to_colmap(
    workspace: Workspace, collection: Collection, options: ImportOptions, *, overwrite: bool, quiet: bool = False
) -> StageReport:
    """Builds the database, unless it stands for these features, matches and options.

    Raises:
        UsageError: an unknown camera model, a wrong number of parameters, or options that differ from before.
        NothingDone: no matches.
    """
    clock = Clock()
    features = current_features(workspace, collection)
    facts = workspace.record().get("match")
    if facts is None:
        raise NothingDone(f"{workspace.folder}: no matches yet; run `sfm-match match` first")
    state = standing_matches(workspace, collection, features, facts)
    if len(state.open_pairs):
        raise NothingDone(f"{workspace.folder}: {len(state.open_pairs):,} pairs are not matched; run `sfm-match match`")
    identity = options.identity()
    workspace.check("import", identity, overwrite=overwrite)
    pairs = sha256_of(workspace.pairs)
    digest = fingerprint([identity, state.fingerprint, pairs, sorted(features.signatures.items()), ALGORITHM])
    refuse_foreign_database(workspace, overwrite=overwrite)
    if read_note(workspace.database, "inputs") == digest:
        workspace.note("import", identity)
        return _report(workspace.database, options, clock, computed=False)
    adjust = options.verify and options.adjust_keypoints
    if adjust and not collection.folder.is_dir():
        raise NothingDone(
            f"{collection.folder}: the images are gone; keypoints are adjusted by them (--no-adjust-keypoints does not)"
        )

    partial = workspace.database.with_name(workspace.database.name + ".partial")
    if read_note(partial, "inputs") != digest:
        partial.unlink(missing_ok=True)
        _remove_journals(partial)
        check_camera_model(options)
        cameras = plan_cameras(described_headers(collection, features), options)
        with clock.on("write"), _database_errors(partial):
            _fill(partial, workspace, features, cameras, options)
            with closing(sqlite3.connect(partial)) as connection, connection:
                write_notes(connection, {"options": json.dumps(identity), "inputs": digest})
    seen = workspace.record()["extract"]

    def matches() -> Iterator[NamedMatches]:
        return iter_matches(workspace, state, features)

    with clock.on("write"), _database_errors(partial):
        accept_all = options.accept_pairs == "all" or not options.verify
        write_matches(
            partial,
            _counted(matches(), len(state.usable), quiet),
            accept_all=accept_all,
            rotations=TURNS if seen.get("turns") else 1,
        )
    adjusted = adjusted_before(partial) is not None
    if options.verify and not adjusted:  # COLMAP would look again at what it rejected, with keypoints that have moved
        with clock.on("verify"), _database_errors(partial):
            verify(partial, matches)
    if adjust and not adjusted:
        with clock.on("adjust"), _database_errors(partial):
            adjust_keypoints(
                partial,
                collection,
                workspace.aligned,
                digest,
                size=seen["size"],
                reduced=seen.get("reduced_decode", False),
                quiet=quiet,
            )
    _checkpoint(partial)
    workspace.note("import", identity)  # before the rename: a database never stands without its options on record
    _remove_journals(workspace.database)  # of a database that is replaced: SQLite would apply them to the new one
    commit(partial, workspace.database)
    clear(workspace.aligned)
    return _report(workspace.database, options, clock, computed=True)


def refuse_foreign_database(workspace: Workspace, *, overwrite: bool) -> None:
    """Raises UsageError where somebody else's database stands in the place of ours."""
    if not overwrite and workspace.database.exists() and read_note(workspace.database, "inputs") is None:
        raise UsageError(
            f"{workspace.database}: not made by sfm-match; choose another --workspace, or add --overwrite to replace it"
        )


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """pycolmap's RuntimeError (a full disk, mostly) in a line."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        raise SfmMatchError(f"{path}: {error} (a full disk?)") from error


def _checkpoint(database: Path) -> None:
    """Brings all into the one file that is renamed: a killed process leaves part of it in the write-ahead log.

    The log is switched off, too: a reader without the right to write would leave files beside the database. COLMAP
    switches it on again when it writes.
    """
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    _remove_journals(database)


def _remove_journals(database: Path) -> None:
    for suffix in ("-journal", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def described_headers(collection: Collection, features: FeatureSet) -> dict[str, Header]:
    """Headers of the images that have features."""
    return {name: header for name, header in collection.usable.items() if name in features.counts}


def _report(database: Path, options: ImportOptions, clock: Clock, *, computed: bool) -> StageReport:
    counts, adjusted = count(database), adjusted_before(database)
    detail = f"{counts.images:,} images, " + (f"{counts.verified:,} verified" if options.verify else "not verified")
    facts: dict[str, Any] = counts.facts()
    judged = verdicts(database)
    if judged:
        facts["verdicts"] = judged
        detail = f"{counts.images:,} images, {judged.get(Verdict.ACCEPTED, 0):,} pairs accepted"
        others = ", ".join(f"{number:,} {why}" for why, number in judged.items() if why != Verdict.ACCEPTED)
        detail += f" (rejected: {others})" if others else ""
    if adjusted is not None:
        detail += f", {adjusted.line()}"
        facts["adjusted"] = asdict(adjusted)
    return StageReport(
        "import",
        "pairs",
        done=counts.pairs if computed else 0,
        standing=0 if computed else counts.pairs,
        seconds=clock.seconds,
        spent=clock.spent,
        detail=detail,
        facts=facts,
    )


def _counted(matches: Iterator[NamedMatches], total: int, quiet: bool) -> Iterator[NamedMatches]:
    """Shows how far the pairs have come."""
    progress = Progress("import", total, "pairs", quiet=quiet)
    try:
        for one in matches:
            yield one
            progress.advance(1)
    finally:
        progress.close()


def _fill(
    path: Path, workspace: Workspace, features: FeatureSet, cameras: list[CameraPlan], options: ImportOptions
) -> None:
    """Cameras, images and keypoints."""
    import pycolmap

    database = pycolmap.Database.open(str(path))
    try:
        with pycolmap.DatabaseTransaction(database):
            ids: dict[str, int] = {}
            for plan in cameras:
                ids |= _write_camera(database, plan, options)
            for unit, mine in features.by_unit(features.units).items():
                stored = read_features(unit_path(workspace.features, unit), mine, descriptors=False)
                for name, image in stored.items():
                    database.write_keypoints(ids[name], image.keypoints)
    finally:
        database.close()


def _write_camera(database: "pycolmap.Database", plan: CameraPlan, options: ImportOptions) -> dict[str, int]:
    """Writes a camera, its rig, its images and their frames. Returns image ids by name."""
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(1, options.camera_model, plan.focal, plan.width, plan.height)
    if plan.params is not None:
        camera.params = list(plan.params)
    camera.has_prior_focal_length = plan.known_focal
    camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
    rig_id = database.write_rig(rig)
    ids = {}
    for name in plan.images:
        image = pycolmap.Image(name=name, camera_id=camera_id)
        image.image_id = ids[name] = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig_id
        frame.add_data_id(image.data_id)
        database.write_frame(frame)
    return ids
