"""dedode-nano against COLMAP's SIFT and OpenCV's ORB: planar sequences, and whole reconstructions.

    python scripts/evaluate_features.py --data DATA --out scripts/benchmarks/results

DATA has `homographies/NAME` (img1.jpg ..., H1to2p ...) and `scenes/NAME` (images, K.txt, gt_cameras). Writes
`features.json` and `features.md`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pycolmap
from evaluation.conditions import conditions
from evaluation.homographies import Sequence, score_rotation, score_sequence
from evaluation.methods import Method, Nano, Orb, Sift
from evaluation.scenes import score_scene

PLANAR = ("keypoints", "mma@1", "mma@3", "mma@5", "mma_matches", "nn_mma@3", "repeatability@1", "repeatability@3")
TURNED = ("mma@1", "mma@3", "mma_matches", "repeatability@3")
POSES = ("registered", "images", "auc@0.5", "auc@1", "auc@5", "centre_rmse_mm", "reprojection_error_px", "seconds")


def table(results: dict[str, dict[str, dict[str, float]]], columns: tuple[str, ...], first: str) -> list[str]:
    """Set -> method -> figures, as Markdown."""
    lines = [f"| {first} | features | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, methods in results.items():
        for method, figures in methods.items():
            values = " | ".join(str(figures.get(column, "–")) for column in columns)
            lines.append(f"| {name} | {method} | {values} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=1024, help="long side, pixels")
    parser.add_argument("--keypoints", type=int, default=2048, help="of an image, at most")
    parser.add_argument("--methods", default="nano,plain,sift,orb")
    parser.add_argument("--sequences", help="names with commas between; default: all")
    parser.add_argument("--scenes", help="names with commas between; default: those with gt_cameras")
    parser.add_argument("--angles", default="0,15,30,45,60,90,135,180", help="of the rotation table, degrees")
    parser.add_argument("--weights", help="other weights of dedode-nano, DETECTOR,DESCRIPTOR")
    options = parser.parse_args()

    pycolmap.logging.minloglevel = 2
    weights = {"weights": options.weights} if options.weights else {}
    every: dict[str, Method] = {
        "nano": Nano(options.size, options.keypoints, weights),
        "plain": Nano(options.size, options.keypoints, weights, "dedode-nano --no-adjust-keypoints", adjust=False),
        "turns": Nano(options.size, options.keypoints, {**weights, "turns": True}, "dedode-nano --turns"),
        "sift": Sift(options.size, options.keypoints),
        "orb": Orb(options.size, options.keypoints),
    }
    methods = [every[name] for name in options.methods.split(",")]
    sequences = sorted((options.data / "homographies").iterdir())
    scenes = sorted(p.parent for p in (options.data / "scenes").glob("*/gt_cameras"))
    if options.sequences is not None:
        sequences = [options.data / "homographies" / name for name in options.sequences.split(",") if name]
    if options.scenes is not None:
        scenes = [options.data / "scenes" / name for name in options.scenes.split(",") if name]

    result: dict[str, Any] = {
        **conditions(options.size, options.keypoints),
        "planar": {},
        "rotation": {},
        "scenes": {},
    }
    for folder in sequences:
        rows: dict[str, dict[str, float]] = {}
        result["planar"][folder.name] = rows
        for method in methods:
            rows[method.name] = score_sequence(Sequence(folder), method)
            print(folder.name, method.name, rows[method.name], flush=True)
    for angle in map(float, filter(None, options.angles.split(","))):
        result["rotation"][f"{angle:g}°"] = rows = {}
        for method in methods:
            rows[method.name] = score_rotation([folder / "img1.jpg" for folder in sequences], method, angle)
            print(f"{angle:g} degrees", method.name, rows[method.name], flush=True)
    for folder in scenes:
        result["scenes"][folder.name] = rows = {}
        for method in methods:
            rows[method.name] = score_scene(folder, method)
            print(folder.name, method.name, rows[method.name], flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "features.json").write_text(json.dumps(result, indent=1) + "\n")
    tables = {"sequence": ("planar", PLANAR), "turned by": ("rotation", TURNED), "scene": ("scenes", POSES)}
    lines = [line for first, (part, columns) in tables.items() for line in [*table(result[part], columns, first), ""]]
    (options.out / "features.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
