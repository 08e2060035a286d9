"""The whole job, from a folder of photographs to a model, beside COLMAP's SIFT: seconds, ratios, poses.

    python scripts/benchmarks/against_colmap.py --data DATA --out scripts/benchmarks/results [--runs 3] [--scenes A,B]

DATA has `scenes/NAME/images`, and perhaps `K.txt` and `gt_cameras`. `NAME@640` is the scene shrunk to a long side of
640 pixels. `rendered:N` is the demo's scene, N views from a circle, matched in their order.

Each run is a process of its own, from its start to its end, so that loading counts (bytecode is there, as where pip
installed a package); ours and COLMAP's by turns. COLMAP has its defaults, but for the images' size and where the
intrinsics are known. Writes `against_colmap.json`, `.md` and, where matplotlib is installed, `.png`.
"""

import argparse
import compileall
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SCENES = (
    "fountain-P11,Herz-Jesus-P8,entry-P10,sceaux_castle,sacre_coeur,fox,lund,entry-P10@640,sceaux_castle@640,fox@640"
)
OURS, SIFT = "sfm-match", "COLMAP SIFT"
OUR_STAGES = ("extract", "match", "import", "reconstruct")
SIFT_STAGES = ("extract", "match", "reconstruct")
OVERLAP = 10  # of sequential pairs, and quadratic: COLMAP's defaults


@dataclass(frozen=True)
class Task:
    """What both are given."""

    images: str  # folder
    size: int  # long side, pixels
    params: str | None  # PINHOLE intrinsics of all images
    sequential: bool  # or exhaustive pairs


def ours(task: Task, place: Path) -> dict[str, float]:
    """Seconds of each stage."""
    import sfm_match
    from sfm_match.errors import NothingDone

    known: dict[str, Any] = {}
    if task.params:
        known = {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": task.params}
    if task.sequential:
        known |= {"overlap": OVERLAP, "quadratic_overlap": True}
    strategy = "sequential" if task.sequential else "exhaustive"
    seconds: dict[str, float] = {}
    try:
        sfm_match.run(
            task.images,
            place,
            size=task.size,
            strategy=strategy,
            on_report=lambda report: seconds.__setitem__(report.stage, report.seconds),
            **known,
        )
    except NothingDone as error:
        print(error, file=sys.stderr)
    return seconds


def sift(task: Task, place: Path) -> dict[str, float]:
    """As `ours`, of COLMAP's stages."""
    import pycolmap

    pycolmap.logging.minloglevel = 2
    database = place / "database.db"
    reader, mode = pycolmap.ImageReaderOptions(), pycolmap.CameraMode.AUTO
    if task.params:
        reader.camera_model, reader.camera_params, mode = "PINHOLE", task.params, pycolmap.CameraMode.SINGLE
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = task.size
    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.min_model_size = 3  # as ours
    pipeline.ba_refine_focal_length = pipeline.ba_refine_extra_params = not task.params
    pipeline.mapper.abs_pose_refine_focal_length = pipeline.mapper.abs_pose_refine_extra_params = not task.params
    times = [time.perf_counter()]
    cpu = pycolmap.Device.cpu
    pycolmap.extract_features(
        database, task.images, camera_mode=mode, reader_options=reader, extraction_options=extraction, device=cpu
    )
    times.append(time.perf_counter())
    if task.sequential:
        pairing = pycolmap.SequentialPairingOptions(overlap=OVERLAP, quadratic_overlap=True)
        pycolmap.match_sequential(database, pairing_options=pairing, device=cpu)
    else:
        pycolmap.match_exhaustive(database, device=cpu)
    times.append(time.perf_counter())
    (place / "sparse").mkdir()
    pycolmap.incremental_mapping(database, task.images, place / "sparse", options=pipeline)
    times.append(time.perf_counter())
    return {stage: later - before for stage, (before, later) in zip(SIFT_STAGES, pairwise(times), strict=True)}


def measured(method: str, task: Task, truth: Path) -> dict[str, Any]:
    """One run in a process of its own, and what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        told = json.dumps({"method": method, "task": asdict(task), "place": folder})
        start = time.perf_counter()
        ran = subprocess.run([sys.executable, __file__, "--one", told], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if ran.returncode:
            raise SystemExit(ran.stderr)
        found: dict[str, Any] = {"seconds": seconds, "stages": json.loads(ran.stdout.splitlines()[-1])}
        return found | largest_model(Path(folder) / "sparse", truth)


def largest_model(sparse: Path, truth: Path) -> dict[str, Any]:
    """How many images the models hold together; of the largest: points, error, and AUC where there is truth."""
    import pycolmap
    from evaluate_poses import evaluate

    models = {path: pycolmap.Reconstruction(path) for path in sparse.glob("*") if (path / "cameras.bin").exists()}
    if not models:
        return {"registered": 0}
    names = {image.name for model in models.values() for image in model.images.values() if image.has_pose}
    best = max(models, key=lambda path: models[path].num_reg_images())
    found = {
        "registered": len(names),
        "largest": models[best].num_reg_images(),
        "points": models[best].num_points3D(),
        "reprojection_error_px": round(models[best].compute_mean_reprojection_error(), 3),
    }
    if truth.is_dir():
        poses = evaluate(best, truth)
        found |= {name: poses[name] for name in ("auc@1", "auc@5", "centre_rmse_mm")}
    return found


def task_of(name: str, data: Path, size: int, place: Path) -> tuple[Task, Path]:
    """What a scene's name means, and its true cameras; pictures that are to be made lie in `place`."""
    if name.startswith("rendered:"):
        return rendered(int(name.removeprefix("rendered:")), size, place), place / "none"
    from evaluation.scenes import known_intrinsics

    plain, _, shrunk = name.partition("@")
    scene = data / "scenes" / plain
    images, scale = scene / "images", 1.0
    if shrunk:
        images, scale = shrink(images, int(shrunk), place / name)
    return Task(str(images), size, known_intrinsics(scene, scale), False), scene / "gt_cameras"


def shrink(images: Path, long_side: int, place: Path) -> tuple[Path, float]:
    """The photographs, smaller, without EXIF; by how much (of the first)."""
    from PIL import Image

    place.mkdir(parents=True)
    scales = []
    for path in sorted(images.iterdir()):
        with Image.open(path) as image:
            scales.append(long_side / max(image.size))
            small = image.convert("RGB")
            small.thumbnail(
                (long_side, long_side), Image.Resampling.BOX if scales[-1] < 0.5 else Image.Resampling.LANCZOS
            )
            small.save(place / f"{path.stem}.jpg", quality=92)
    return place, scales[0]


def rendered(views: int, size: int, place: Path) -> Task:
    """The demo's scene as a video would see it, intrinsics known."""
    import cv2

    from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH, cameras, render, room

    folder = place / f"rendered-{views}"
    folder.mkdir()
    planes = room()
    for number, view in enumerate(cameras(views)):  # names that sort in their order, for COLMAP
        cv2.imwrite(str(folder / f"frame{number:05d}.jpg"), render(view, planes)[..., ::-1])
    return Task(str(folder), size, f"{FOCAL},{FOCAL},{WIDTH / 2},{HEIGHT / 2}", True)


def summary(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, and their ratio."""
    row: dict[str, Any] = {"scene": name}
    for method, found in runs.items():
        stages = {
            stage: round(median(one["stages"].get(stage, 0.0) for one in found), 2) for stage in found[0]["stages"]
        }
        rest = {key: median(one.get(key, 0) for one in found) for key in found[0] if key not in ("seconds", "stages")}
        every = [round(one["seconds"], 2) for one in found]
        row[method] = {"seconds": median(every), "every": every, "stages": stages, **rest}
    row["ratio"] = round(row[SIFT]["seconds"] / row[OURS]["seconds"], 2)
    return row


def table(rows: list[dict[str, Any]], mean: float) -> str:
    """Markdown."""
    lines = [
        f"| scene | {OURS}: extract, match, import, reconstruct | whole, s | {SIFT}: extract, match, map | whole, s "
        "| ratio | images | AUC@1° |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["scene"]]
        for method, stages in ((OURS, OUR_STAGES), (SIFT, SIFT_STAGES)):
            cells += [
                ", ".join(f"{row[method]['stages'].get(stage, 0):.1f}" for stage in stages),
                f"{row[method]['seconds']:.1f}",
            ]
        a, b = row[OURS], row[SIFT]
        poses = f"{a['auc@1']:.3f} / {b['auc@1']:.3f}" if "auc@1" in a and "auc@1" in b else "–"
        cells += [f"**{row['ratio']:.2f}**", f"{a['registered']:g} / {b['registered']:g}", poses]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Geometric mean of the ratios: **{mean:.2f}**.", ""])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8, 0.45 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    for offset, method, colour in ((-0.2, OURS, "#0072b2"), (0.2, SIFT, "#e69f00")):
        places = [place + offset for place in range(len(rows))]
        axes.barh(places, [row[method]["seconds"] for row in rows], 0.4, color=colour, label=method)
    axes.set_yticks(range(len(rows)), [f"{row['scene']}  {row['ratio']:.1f}x" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds from folder to model")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the results; default: they are printed")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024, help="long side, pixels")
    parser.add_argument("--scenes", default=SCENES, help="names with commas between")
    parser.add_argument("--methods", default=f"{OURS},{SIFT}", help="to look at one alone")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a process of its own does
    options = parser.parse_args()
    if options.one:
        told = json.loads(options.one)
        run = {OURS: ours, SIFT: sift}[told["method"]]
        print(json.dumps(run(Task(**told["task"]), Path(told["place"]))))
        return

    from evaluation.conditions import conditions

    for package in ("sfm_match", "pairs", "exports"):
        compileall.compile_dir(Path(__file__).parents[2] / package, quiet=1)
    rows = []
    head = conditions(options.size, 4096)
    with tempfile.TemporaryDirectory() as place:
        for name in options.scenes.split(","):
            task, truth = task_of(name, options.data, options.size, Path(place))
            runs: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods.split(",")}
            for _ in range(options.runs):
                for method, found in runs.items():
                    found.append(measured(method, task, truth))
                    print(name, method, json.dumps(found[-1]), file=sys.stderr, flush=True)
            if len(runs) == 2:
                rows.append(summary(name, runs))
    if not rows:
        return
    mean = geometric_mean(row["ratio"] for row in rows)
    print(table(rows, mean))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {**head, "runs": options.runs, "geometric_mean": round(mean, 3), "scenes": rows}
        (options.out / "against_colmap.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "against_colmap.md").write_text(table(rows, mean))
        try:
            draw(rows, options.out / "against_colmap.png")
        except ImportError:
            print("no picture: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
