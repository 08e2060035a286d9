"""`sparse/0 ...`: reconstruction with pycolmap's mappers, written under a temporary name, then renamed."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfm_match.collection import Collection
from sfm_match.colmap import hush_colmap
from sfm_match.colmap.reading import count, read_note
from sfm_match.colmap.refinement import refine_robustly
from sfm_match.config import ReconstructOptions
from sfm_match.errors import NothingDone, UsageError
from sfm_match.progress import Clock, StageReport
from sfm_match.store.shard import TEMPORARY, commit, fingerprint, remove_leftovers, write_text
from sfm_match.workspace import Workspace

if TYPE_CHECKING:
    import pycolmap

ALGORITHM = 1  # raise it when the same database and options come to give other models
_TRIES = 3  # with the seeds that follow, where the first model lacks many images
_MANY = 0.1  # of all
_TRIED_IMAGES = 200  # at most; with more a try takes long
_SUMMARY = "sfm-match.json"  # in sparse/: what it was made from, and the numbers


@dataclass(frozen=True)
class ModelSummary:
    """The numbers of one model."""

    registered: int  # images
    points: int
    track_length: float  # mean observations of a point
    reprojection_error: float  # mean, pixels


def reconstruct_model(
    workspace: Workspace, collection: Collection, options: ReconstructOptions, *, overwrite: bool
) -> StageReport:
    """Runs the mapper, unless its models stand for this database and these options.

    Raises:
        NothingDone: no database, or no image pair to start a reconstruction from.
    """
    clock = Clock()
    inputs = read_note(workspace.database, "inputs")
    if inputs is None:
        raise NothingDone(f"{workspace.folder}: no database yet; run `sfm-match import` first")
    workspace.check("reconstruct", options.identity(), overwrite=overwrite)
    digest = fingerprint([options.identity(), inputs, ALGORITHM])
    total = count(workspace.database).images
    refuse_foreign_models(workspace, overwrite=overwrite)
    standing = _standing_models(workspace.sparse, digest)
    if standing is not None:
        workspace.note("reconstruct", options.identity())
        return _report(standing, total, clock, computed=False)
    if not collection.folder.is_dir():
        raise NothingDone(f"{collection.folder}: the images are gone; the mapper reads the points' colours from them")
    temporary = workspace.folder / f"sparse{TEMPORARY}{os.getpid()}"
    temporary.mkdir()
    try:
        refine = options.refine_focal_length
        if refine is None:
            refine = not _intrinsics_given(workspace)
        with clock.on("map"):
            reconstructions = _map(workspace, collection, options, temporary, refine_cameras=refine)
        if options.robust_refinement:
            with clock.on("refine"):
                threads = options.mapper_threads or -1
                reconstructions = [
                    refine_robustly(model, refine_cameras=refine, threads=threads) for model in reconstructions
                ]
        if not reconstructions:
            raise NothingDone(
                f"{workspace.database}: no reconstruction; too few verified matches "
                "(more pairs, a larger --size or known --camera-params may help)"
            )
        with clock.on("write"):
            models = _write(reconstructions, temporary)
            summary = {"inputs": digest, "models": [asdict(m) for m in models], "files": _sizes(temporary)}
            write_text(temporary / _SUMMARY, json.dumps(summary))
            workspace.note("reconstruct", options.identity())
            if workspace.sparse.exists():
                workspace.sparse.rename(workspace.folder / f"sparse{TEMPORARY}0")
            commit(temporary, workspace.sparse)
    finally:
        remove_leftovers(workspace.folder)
    return _report(models, total, clock, computed=True)


def refuse_foreign_models(workspace: Workspace, *, overwrite: bool) -> None:
    """Raises UsageError where `sparse/` holds what sfm-match did not write: it would be replaced as a whole."""
    sparse = workspace.sparse
    if overwrite or not sparse.exists():
        return
    recorded = _read_summary(sparse).get("files", {})
    found = _sizes(sparse)
    strange = [name for name, size in found.items() if recorded.get(name) != size and name != _SUMMARY]
    if strange:
        raise UsageError(
            f"{sparse / strange[0]}: not written by sfm-match, and {sparse} is replaced as a whole; "
            "move it, choose another --workspace, or add --overwrite"
        )


def _sizes(sparse: Path) -> dict[str, int]:
    """Every file below, and its size in bytes: what is edited or added shows."""
    return {p.relative_to(sparse).as_posix(): p.stat().st_size for p in sorted(sparse.rglob("*")) if p.is_file()}


def _map(
    workspace: Workspace, collection: Collection, options: ReconstructOptions, output: Path, *, refine_cameras: bool
) -> list["pycolmap.Reconstruction"]:
    """Largest model first. Where the incremental mapper finds no start, the global one, which needs none, has a try.

    Where the incremental mapper starts may decide whether few matches hold two halves together: where the first model
    lacks many images, it runs again with the seeds that follow, and the run whose first model has most images counts.
    """
    import pycolmap

    hush_colmap()
    paths = str(workspace.database), str(collection.folder)
    total = count(workspace.database).images
    least = min(options.min_model_size, 0.8 * total)  # COLMAP's rule

    def usable(found: dict[int, pycolmap.Reconstruction]) -> list[pycolmap.Reconstruction]:
        models = sorted(found.values(), key=lambda model: -model.num_reg_images())
        return [model for model in models if model.num_reg_images() >= least]

    def largest(models: list[pycolmap.Reconstruction]) -> int:
        return models[0].num_reg_images() if models else 0

    def incremental(further: int) -> list[pycolmap.Reconstruction]:
        seeded = replace(options, seed=options.seed + further)
        pycolmap.set_random_seed(seeded.seed)
        place = output / str(further)
        place.mkdir()
        return usable(
            pycolmap.incremental_mapping(*paths, str(place), options=_incremental_options(seeded, refine_cameras))
        )

    models: list[pycolmap.Reconstruction] = []
    if options.mapper == "incremental":
        models = incremental(0)
        for further in range(1, _TRIES):
            if total > _TRIED_IMAGES or not models or largest(models) > (1 - _MANY) * total:
                break
            models = max(models, incremental(further), key=largest)
    if models:
        return models
    pycolmap.set_random_seed(options.seed)
    return usable(pycolmap.global_mapping(*paths, str(output), options=_global_options(options, refine_cameras)))


def _intrinsics_given(workspace: Workspace) -> bool:
    return bool(json.loads(read_note(workspace.database, "options") or "{}").get("camera_params"))


def _incremental_options(options: ReconstructOptions, refine: bool) -> "pycolmap.IncrementalPipelineOptions":
    import pycolmap

    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.min_model_size = options.min_model_size
    pipeline.num_threads = pipeline.mapper.num_threads = options.mapper_threads or -1
    for part in (pipeline, pipeline.mapper, pipeline.triangulation):
        part.random_seed = options.seed
    pipeline.ba_refine_focal_length = pipeline.ba_refine_extra_params = refine
    pipeline.mapper.abs_pose_refine_focal_length = pipeline.mapper.abs_pose_refine_extra_params = refine
    return pipeline


def _global_options(options: ReconstructOptions, refine: bool) -> "pycolmap.GlobalPipelineOptions":
    import pycolmap

    pipeline = pycolmap.GlobalPipelineOptions()
    pipeline.min_model_size = options.min_model_size
    pipeline.num_threads = pipeline.mapper.num_threads = options.mapper_threads or -1
    for part in (
        pipeline,
        pipeline.mapper,
        pipeline.mapper.rotation_averaging,
        pipeline.mapper.global_positioning,
        pipeline.mapper.retriangulation,
    ):
        part.random_seed = options.seed
    pipeline.mapper.bundle_adjustment.refine_focal_length = refine
    pipeline.mapper.bundle_adjustment.refine_extra_params = refine
    return pipeline


def _write(reconstructions: list["pycolmap.Reconstruction"], folder: Path) -> list[ModelSummary]:
    for stale in folder.iterdir():  # the mapper's own numbering
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    summaries = []
    for number, model in enumerate(reconstructions):
        path = folder / str(number)
        path.mkdir()
        model.write(str(path))
        model.export_PLY(str(path / "points.ply"))
        summaries.append(
            ModelSummary(
                model.num_reg_images(),
                model.num_points3D(),
                round(model.compute_mean_track_length(), 3),
                round(model.compute_mean_reprojection_error(), 4),
            )
        )
    return summaries


def _read_summary(sparse: Path) -> dict[str, Any]:
    """What stands in sparse/sfm-match.json; nothing where it cannot be read."""
    try:
        stored: dict[str, Any] = json.loads((sparse / _SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored


def registered_before(sparse: Path) -> int:
    """Images of the first model that an earlier run wrote; 0 without one."""
    models = _read_summary(sparse).get("models") or [{}]
    return int(models[0].get("registered", 0))


def _standing_models(sparse: Path, digest: str) -> list[ModelSummary] | None:
    """The models, when they are of these inputs and all their files stand."""
    stored = _read_summary(sparse)
    if stored.get("inputs") != digest or not stored["files"].items() <= _sizes(sparse).items():
        return None
    return [ModelSummary(**model) for model in stored["models"]]


def _report(models: list[ModelSummary], total: int, clock: Clock, *, computed: bool) -> StageReport:
    best = models[0]
    detail = (
        f"{best.registered}/{total} images registered, {best.points:,} points, "
        f"track length {best.track_length:.2f}, reprojection error {best.reprojection_error:.2f} px"
    )
    if len(models) > 1:
        detail += f"; {len(models)} models, the others with {', '.join(str(m.registered) for m in models[1:])} images"
    return StageReport(
        "reconstruct",
        "images",
        done=best.registered if computed else 0,
        standing=0 if computed else best.registered,
        seconds=clock.seconds,
        spent=clock.spent,
        detail=detail,
        facts={**asdict(best), "total": total, "models": len(models)},
    )
