"""A rendered city block with truth, a thousand views of it: the mappers of sfm-match, and COLMAP's SIFT.

    python scripts/benchmarks/city_block.py --work FOLDER --out scripts/benchmarks/results [--views 300,1000]

`evaluation.city` makes the views: two circles round a block of houses whose façades repeat. Pairs are sfm-match's, of
the sequence (overlap 10, quadratic) and of retrieval (10 an image); COLMAP matches the very same. Intrinsics are known
to both; COLMAP has its defaults but for these. `true points` has no pictures: matches are those of the true points, to
measure mappers at sizes where features take long. Each step is a process of its own: features and pairs up to a
database, then each mapper on that database. What FOLDER has is kept: a step that is done is not done again.

Rotations are compared after the similarity that brings the largest model's camera centres to the true ones; views are
off by more than a degree after the one that fits most of them. Seconds are
those of the clock, and of all processors together. Writes `city_block.json` and `.md`.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from evaluate_poses import Pose, read_model, rotation_angle
from evaluation import city_points
from evaluation.city import FOCAL, HEIGHT, WIDTH, City, city, plan, render, walk

from sfm_match.colmap.similarity import Similarity, align, fit_robustly

OURS, SIFT, POINTS = "sfm-match", "COLMAP SIFT", "true points"
PARAMS = f"{FOCAL},{FOCAL},{WIDTH / 2},{HEIGHT / 2}"
OVERLAP, RETRIEVED = 10, 10
ALL = f"{OURS}/incremental,{OURS}/global,{OURS}/hierarchical,{SIFT}/incremental,{SIFT}/global"
LIMIT = 4 * 3600.0  # seconds of a mapper

_OFF = 1.0  # degrees, from which a view counts as placed wrongly

Seconds = dict[str, tuple[float, float]]  # stage -> clock, processors


@contextmanager
def timed(stages: Seconds, name: str) -> Iterator[None]:
    started = time.perf_counter(), time.process_time()
    yield
    stages[name] = round(time.perf_counter() - started[0], 2), round(time.process_time() - started[1], 2)


def staged(record: Path, steps: dict[str, Callable[[], object]]) -> Seconds:
    """Each step in its turn. Those on record are not done again; a step that was interrupted is told by its name."""
    found: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    for name, step in steps.items():
        begun = f"{name}, interrupted"
        if name not in found:
            again = begun in found
            record.write_text(json.dumps(found | {begun: (0.0, 0.0)}))
            with timed(found, name):
                step()
            if again:  # what it took before is not known
                found[begun] = (0.0, 0.0)
            record.write_text(json.dumps(found))
    return found


def our_database(place: Path) -> Seconds:
    """Features, pairs and verified matches of `place/images`, in `place/sfm-match`."""
    import sfm_match

    workspace = place / OURS
    pairs: dict[str, Any] = {"overlap": OVERLAP, "quadratic_overlap": True, "num_images": RETRIEVED}
    cameras: dict[str, Any] = {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": PARAMS}
    return staged(
        place / f"{OURS}.stages.json",
        {
            "extract": lambda: sfm_match.extract(place / "images", workspace),
            "pairs": lambda: sfm_match.pairs(workspace, strategy="sequential+retrieval", **pairs),
            "match": lambda: sfm_match.match(workspace),
            "import": lambda: sfm_match.import_(workspace, **cameras),
        },
    )


def our_models(place: Path, mapper: str, output: Path) -> Seconds:
    """By a mapper of ours, or by COLMAP's hierarchical one on our database."""
    import sfm_match
    from sfm_match.errors import NothingDone

    stages = Seconds()
    with timed(stages, "map"):
        if mapper == "hierarchical":
            shutil.copy(place / OURS / "database.db", output / "database.db")
            (output / "sparse").mkdir()
            _hierarchical(output / "database.db", place / "images", output / "sparse")
        else:
            try:
                sfm_match.reconstruct(place / OURS, mapper=mapper, overwrite=True)
                shutil.copytree(place / OURS / "sparse", output / "sparse")
            except NothingDone as error:
                print(error, file=sys.stderr)
    return stages


def sift_database(place: Path) -> Seconds:
    """As `our_database`, by COLMAP; pairs are those of `place/sfm-match`."""
    import pycolmap

    pycolmap.logging.minloglevel = 2
    folder, cpu = place / SIFT, pycolmap.Device.cpu
    folder.mkdir(exist_ok=True)
    database, listed = folder / "database.db", folder / "pairs.txt"
    listed.write_text((place / OURS / "pairs.txt").read_text().replace("\t", " "))
    reader, pairing = pycolmap.ImageReaderOptions(), pycolmap.ImportedPairingOptions()
    reader.camera_model, reader.camera_params = "PINHOLE", PARAMS
    pairing.match_list_path = str(listed)
    single = pycolmap.CameraMode.SINGLE
    return staged(
        place / f"{SIFT}.stages.json",
        {
            "extract": lambda: pycolmap.extract_features(
                database, place / "images", camera_mode=single, reader_options=reader, device=cpu
            ),
            "match": lambda: pycolmap.match_image_pairs(database, pairing_options=pairing, device=cpu),
        },
    )


def sift_models(place: Path, mapper: str, output: Path) -> Seconds:
    import pycolmap

    pycolmap.logging.minloglevel = 2
    database, models, stages = place / SIFT / "database.db", output / "sparse", Seconds()
    models.mkdir()
    with timed(stages, "map"):
        if mapper == "incremental":
            pipeline = pycolmap.IncrementalPipelineOptions()
            _known_intrinsics(pipeline)
            pycolmap.incremental_mapping(database, place / "images", models, options=pipeline)
        else:
            whole = pycolmap.GlobalPipelineOptions()
            whole.mapper.bundle_adjustment.refine_focal_length = False
            whole.mapper.bundle_adjustment.refine_extra_params = False
            pycolmap.global_mapping(database, place / "images", models, options=whole)
    return stages


def points_database(place: Path) -> Seconds:
    """No pictures: keypoints and matches are those of the true points."""
    views = int(place.name.removeprefix("views-"))
    ground, folder = plan(views), place / POINTS
    folder.mkdir(exist_ok=True)
    (folder / "database.db").unlink(missing_ok=True)
    pairs = city_points.points_database(folder / "database.db", walk(ground, views), city(ground))
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return {}


def points_models(place: Path, mapper: str, output: Path) -> Seconds:
    """By a mapper of ours, or `COLMAP incremental` or `hierarchical`: its own with its defaults."""
    import pycolmap

    from sfm_match.colmap.mapper import map_components
    from sfm_match.images.files import Header
    from sfm_match.job.progress import Clock
    from sfm_match.options.stages import ReconstructOptions

    pycolmap.logging.minloglevel = 2
    database, stages, models = output / "database.db", Seconds(), output / "sparse"
    shutil.copy(place / POINTS / "database.db", database)
    models.mkdir()
    with timed(stages, "map"):
        if mapper in ("incremental", "global"):
            views = int(place.name.removeprefix("views-"))
            headers = {view.name: Header(WIDTH, HEIGHT) for view in walk(plan(views), views)}
            options, own = ReconstructOptions(mapper=mapper, refine_focal_length=False), output / "own"
            own.mkdir()
            for number, model in enumerate(map_components(database, place, headers, options, own, Clock()).models):
                (models / str(number)).mkdir()
                model.write(str(models / str(number)))
        elif mapper == "hierarchical":
            _hierarchical(database, place, models)
        else:
            pipeline = pycolmap.IncrementalPipelineOptions()
            _known_intrinsics(pipeline)
            pipeline.extract_colors = False
            pycolmap.incremental_mapping(database, place, models, options=pipeline)
    return stages


def _hierarchical(database: Path, images: Path, models: Path) -> None:
    import pycolmap

    options = pycolmap.HierarchicalPipelineOptions()
    _known_intrinsics(options.incremental_options)
    options.incremental_options.extract_colors = False
    pycolmap.hierarchical_mapping(database, images, models, options)


def _known_intrinsics(pipeline: Any) -> None:
    pipeline.ba_refine_focal_length = pipeline.ba_refine_extra_params = False
    pipeline.mapper.abs_pose_refine_focal_length = pipeline.mapper.abs_pose_refine_extra_params = False


DATABASES: dict[str, Callable[[Path], Seconds]] = {OURS: our_database, SIFT: sift_database, POINTS: points_database}
MODELS: dict[str, Callable[[Path, str, Path], Seconds]] = {OURS: our_models, SIFT: sift_models, POINTS: points_models}


def one(step: str, place: Path) -> dict[str, Any]:
    """What a process of its own does: `METHOD` makes a database, `METHOD/MAPPER` models of it."""
    method, _, mapper = step.partition("/")
    load = os.getloadavg()[0]
    if mapper:
        output = place / "models" / method / mapper
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        stages = MODELS[method](place, mapper, output)
    else:
        stages = DATABASES[method](place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"stages": stages, "load": [round(load, 2), round(os.getloadavg()[0], 2)], "peak_mb": peak}


def done(step: str, place: Path, limit: float | None = None) -> dict[str, Any]:
    """The record of a step, which is run, so many seconds at most, if there is none."""
    record = place / (step.replace("/", "-") + ".json")
    if record.exists():
        found: dict[str, Any] = json.loads(record.read_text())
        return found
    told = [sys.executable, __file__, "--one", step, "--work", str(place)]
    try:
        ran = subprocess.run(told, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        found = {"stages": {}, "longer_than": limit}
    else:
        if ran.returncode:
            raise SystemExit(f"{step}: {ran.stderr}")
        found = json.loads(ran.stdout.splitlines()[-1])
    record.write_text(json.dumps(found) + "\n")
    print(place.name, step, json.dumps(found), file=sys.stderr, flush=True)
    return found


def poses_of(views: int) -> dict[str, Pose]:
    """The truth."""
    return {view.name: (view.rotation, view.centre) for view in walk(plan(views), views)}


def render_missing(views: int, place: Path) -> None:
    """Views that are not in `place/images` are made."""
    ground = plan(views)
    folder = place / "images"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [view for view in walk(ground, views) if not (folder / view.name).exists()]
    if missing:
        cv2.setNumThreads(1)
        scene: City = city(ground)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for view, image in zip(missing, pool.map(lambda one: render(one, scene), missing), strict=True):
                partial = place / f"unfinished-{view.name}"
                cv2.imwrite(str(partial), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                partial.replace(folder / view.name)


def judged(models: Path, truth: dict[str, Pose]) -> dict[str, Any]:
    """How many images the models hold together; of the largest: errors in degrees and metres."""
    read = [read_model(path) for path in models.glob("*") if (path / "cameras.bin").exists()]
    if not read:
        return {"registered": 0, "models": 0}
    poses, model = max(read, key=lambda one: len(one[0]))
    names = sorted(poses)
    found, real = (np.array([side[name][1] for name in names]) for side in (poses, truth))
    _, held = fit_robustly(found, real)

    def errors(world_from_model: Similarity) -> tuple[np.ndarray, np.ndarray]:
        apart = np.linalg.norm(world_from_model.apply(found) - real, axis=1)
        turned = [poses[name][0] @ world_from_model.rotation.T for name in names]
        angles = [rotation_angle(one, truth[name][0]) for one, name in zip(turned, names, strict=True)]
        return np.array(angles), apart

    angles, apart = errors(align(found, real))
    without, _ = errors(align(found[held], real[held]))  # a stretch that is elsewhere turns all the others
    return {
        "registered": len(set().union(*(one[0] for one in read))),
        "models": len(read),
        "largest": len(names),
        "rotation_deg": _spread(angles),
        "off": int((without > _OFF).sum()),
        "position_m": _spread(apart),
        "points": model.num_points3D(),
        "observations": int(model.compute_num_observations()),
        "reprojection_error_px": round(model.compute_mean_reprojection_error(), 3),
    }


def _spread(errors: np.ndarray) -> dict[str, float]:
    median, most, worst = np.percentile(errors, (50, 90, 100))
    return {"median": round(float(median), 4), "90%": round(float(most), 4), "worst": round(float(worst), 4)}


def measured(views: int, methods: list[str], work: Path, limit: float) -> list[dict[str, Any]]:
    """A row each, in the order of the methods."""
    place = work / f"views-{views}"
    truth = poses_of(views)
    rows = []
    for chosen in methods:
        method, _, mapper = chosen.partition("/")
        if method != POINTS:
            render_missing(views, place)
        else:
            place.mkdir(parents=True, exist_ok=True)
        if method == SIFT:
            done(OURS, place)  # has the pairs
        before, mapped = done(method, place), done(chosen, place, limit)
        if method == POINTS:
            pairs = int(json.loads((place / POINTS / "pairs.json").read_text()))
        else:
            pairs = len((place / OURS / "pairs.txt").read_text().splitlines())
        stages = before["stages"] | mapped["stages"]
        whole = [round(sum(times[i] for times in stages.values()), 1) for i in (0, 1)]
        row = {"views": views, "pairs": pairs, "method": method, "mapper": mapper, "stages": stages, "seconds": whole}
        row |= {"load": [before.get("load"), mapped.get("load")], "peak_mb": mapped.get("peak_mb")}
        if "longer_than" in mapped:
            row["longer_than"] = mapped["longer_than"]
        else:
            row |= judged(place / "models" / method / mapper / "sparse", truth)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| views | pairs | features | mapper | to the database, s | map, s | whole, s | of processors, s "
        "| registered (largest model) | of it off by over 1 degree | rotation error, degrees: median, 90 %, worst "
        "| position error, m: median, 90 %, worst |",
        "|" + "---|" * 12,
    ]
    for row in rows:
        before = sum(times[0] for stage, times in row["stages"].items() if stage != "map")
        interrupted = any("interrupted" in stage for stage in row["stages"])
        cells = [
            f"{row['views']:,}",
            f"{row['pairs']:,}",
            row["method"],
            row["mapper"],
            f"{'over ' * interrupted}{before:.0f}",
        ]
        if "longer_than" in row:
            cells += [f"over {row['longer_than']:.0f}", *["–"] * 6]
        else:
            cells += [f"{row['stages']['map'][0]:.0f}", f"{row['seconds'][0]:.0f}", f"{row['seconds'][1]:.0f}"]
            cells.append(f"{row['registered']:,} ({row.get('largest', 0):,})")
            cells.append(str(row.get("off", "–")))
            cells += [
                ", ".join(f"{value:.3f}" for value in row[key].values()) if key in row else "–"
                for key in ("rotation_deg", "position_m")
            ]
        lines.append("| " + " | ".join(cells) + " |")
    loads = [value for row in rows for pair in row["load"] if pair for value in pair]
    told = (
        f"Load of the machine while it was measured, on {os.cpu_count()} cores: {min(loads):.1f} to {max(loads):.1f}."
    )
    return "\n".join([*lines, "", told, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of views, databases and models")
    parser.add_argument("--out", type=Path, help="folder of the results; default: they are printed")
    parser.add_argument("--views", default="300,1000", help="numbers with commas between, each a block of its own")
    parser.add_argument("--methods", default=ALL, help="METHOD/MAPPER with commas between")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a mapper")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a process of its own does
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.work)))
        return
    from evaluation.conditions import conditions

    head = conditions(WIDTH, 4096)
    methods, work = options.methods.split(","), options.work.resolve()
    rows = [row for views in options.views.split(",") for row in measured(int(views), methods, work, options.limit)]
    print(table(rows))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "city_block.json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
        (options.out / "city_block.md").write_text(table(rows))


if __name__ == "__main__":
    main()
