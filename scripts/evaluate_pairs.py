"""What each strategy of pairs finds of what all pairs give, and what it costs.

    python scripts/evaluate_pairs.py --scenes SCENES --work WORK --out scripts/benchmarks/results

SCENES has NAME/images and perhaps NAME/K.txt (3 x 3, shared by all images). Every scene is extracted, matched and
verified exhaustively once, in WORK; a strategy's database is that one without the pairs that it did not propose (the
keypoints are as all pairs adjusted them). Writes `DATE_pairs.json` and `DATE_pairs.md`. WORK is kept: another run goes
on from it.

Three measures of a true pair: `verified`, a two-view geometry of 15 inliers at least; `confirmed`, one of which 15
inliers agree with the exhaustive model's poses, too; and `covisible`, 15 points of that model that both images see.
Among some tens of wrong matches, 15 to 20 fit some geometry by chance: where nearly all pairs are verified, the others
are the ones to look at.
"""

import argparse
import json
import os
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from evaluate_epipolar import distances, model_cameras
from evaluation.conditions import conditions

import sfm_match
from sfm_match.colmap.queries import MOST_IMAGES, verified_pairs
from sfm_match.errors import NothingDone
from sfm_match.images.collection import Collection
from sfm_match.job.workspace import Workspace
from sfm_match.store.pairs import read_pairs

SCENES = "fountain-P11,Herz-Jesus-P8,sceaux_castle,sacre_coeur,fox,lund,garfield"
TURNED = ("garfield",)  # a drone's pictures, of every heading
LOCATED = ("garfield", "lund")
SHARED = 15  # points, or inliers
AGREES = 4.0  # pixels; COLMAP's for inliers

KINDS = ("verified", "confirmed", "covisible")  # of true pairs

Pairs = set[tuple[int, int]]


@dataclass
class Truth:
    """What exhaustive matching of a scene gives."""

    names: list[str]
    verified: Pairs
    confirmed: Pairs
    covisible: Pairs
    registered: int


def strategies(scene: str, model: Path) -> dict[str, dict[str, Any]]:
    """Name -> options of `sfm_match.pairs`."""
    every: dict[str, dict[str, Any]] = {
        "auto": {"strategy": "auto"},
        "exhaustive --prune": {"strategy": "exhaustive", "prune": True},
        "exhaustive --prune, best 10": {"strategy": "exhaustive", "prune": True, "prune_num_images": 10},
        "retrieval, 10 an image": {"strategy": "retrieval", "num_images": 10},
        "retrieval, 20 an image": {"strategy": "retrieval"},
        "retrieval 20 --prune, best 10": {"strategy": "retrieval", "prune": True, "prune_num_images": 10},
        "sequential": {"strategy": "sequential"},
        "sequential, 5, loops": {
            "strategy": "sequential",
            "overlap": 5,
            "loop_detection": True,
            "loop_detection_num_images": 10,
        },
        "poses": {"strategy": "poses", "reference_model": model},
        "covisibility": {"strategy": "covisibility", "reference_model": model},
    }
    if scene in LOCATED:
        every["spatial"] = {"strategy": "spatial"}
        every["sequential+spatial, 20 around"] = {"strategy": "sequential+spatial", "max_num_neighbors": 20}
    return every


def run_options(folder: Path, size: int, keypoints: int) -> dict[str, Any]:
    """Of the whole job: known intrinsics where there are some."""
    options: dict[str, Any] = {"size": size, "max_keypoints": keypoints, "turns": folder.name in TURNED}
    if (folder / "K.txt").exists():
        k = np.loadtxt(folder / "K.txt")
        params = ",".join(str(value) for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        options |= {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": params}
    return options


def truth_of(workspace: Path) -> Truth:
    with Workspace(workspace) as place:
        names = list(Collection.load(place).usable)
    verified = {pair(*row) for row in verified_pairs(workspace / "database.db", names).tolist()}
    model = pycolmap.Reconstruction(str(workspace / "sparse" / "0"))
    index = {name: i for i, name in enumerate(names)}
    place_of = {number: index[image.name] for number, image in model.images.items()}
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        seen = sorted({place_of[element.image_id] for element in point.track.elements})
        shared.update(combinations(seen, 2))
    covisible = {two for two, count in shared.items() if count >= SHARED}
    cameras = model_cameras(workspace / "sparse" / "0")
    confirmed = {
        pair(index[a], index[b])
        for a, b, found in distances(workspace / "database.db", cameras)
        if (found <= AGREES).sum() >= SHARED
    }
    return Truth(names, verified, confirmed, covisible, model.num_reg_images())


def pair(i: int, j: int) -> tuple[int, int]:
    return min(i, j), max(i, j)


def share(some: Pairs, count: int, most: int | None = None) -> float | None:
    """Of `count` pairs; `most`: how many a list could hold at all."""
    found = len(some) if most is None else min(len(some), most)
    return round(found / count, 4) if count else None


def keep_only(database: Path, names: list[str], kept: Pairs) -> None:
    """Deletes all other pairs' matches and geometries. No pycolmap may have it open meanwhile."""
    connection = sqlite3.connect(database)
    index = {name: i for i, name in enumerate(names)}
    images = {number: index[name] for number, name in connection.execute("SELECT image_id, name FROM images")}
    with connection:
        for table in ("matches", "two_view_geometries"):
            numbers = [row[0] for row in connection.execute(f"SELECT pair_id FROM {table}")]
            strange = [
                (number,)
                for number in numbers
                if pair(*(images[part] for part in divmod(number, MOST_IMAGES))) not in kept
            ]
            connection.executemany(f"DELETE FROM {table} WHERE pair_id = ?", strange)
    connection.close()


def fresh_copy(exhaustive: Path, place: Path) -> None:
    """A workspace with the same features, and nothing after them."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(exhaustive / "features", place / "features", copy_function=os.link)
    for file in ("images.json", "sfm-match.json"):
        shutil.copy(exhaustive / file, place / file)


def registered_with(exhaustive: Path, place: Path, truth: Truth, kept: Pairs, seed: int = 0) -> int:
    """Images of the largest model that these pairs give."""
    shutil.copy(exhaustive / "database.db", place / "database.db")
    keep_only(place / "database.db", truth.names, kept)
    try:
        return int(sfm_match.reconstruct(place, overwrite=True, seed=seed).facts["registered"])
    except NothingDone:
        return 0


def evaluate(scene: Path, work: Path, size: int, keypoints: int, only: set[str], seeds: int) -> dict[str, Any]:
    exhaustive = work / scene.name / "exhaustive"
    reports = sfm_match.run(scene / "images", exhaustive, pairs="exhaustive", **run_options(scene, size, keypoints))
    truth = truth_of(exhaustive)
    count = len(truth.names)
    result: dict[str, Any] = {
        "images": count,
        "pairs": count * (count - 1) // 2,
        "verified": len(truth.verified),
        "confirmed": len(truth.confirmed),
        "covisible": len(truth.covisible),
        "registered": truth.registered,
        "exhaustive_seconds": {report.stage: round(report.seconds, 1) for report in reports if report.done},
        "strategies": {},
    }
    place = work / scene.name / "strategy"
    if seeds:
        fresh_copy(exhaustive, place)
        every = set(combinations(range(count), 2))
        by_seed = [registered_with(exhaustive, place, truth, every, seed) for seed in range(seeds)]
        result["registered_by_seed"] = by_seed  # how firm the number of registered images is
    for name, options in strategies(scene.name, exhaustive / "sparse" / "0").items():
        if only and name not in only:
            continue
        fresh_copy(exhaustive, place)
        report = sfm_match.pairs(place, overwrite=True, **options)
        with Workspace(place):
            found = {pair(*row) for row in read_pairs(place / "pairs.txt", truth.names).tolist()}
        row = {
            "chosen": report.detail,
            "pairs": len(found),
            "seconds": round(report.seconds, 2),
            "verified": share(found & truth.verified, len(truth.verified)),
            "confirmed": share(found & truth.confirmed, len(truth.confirmed)),
            "covisible": share(found & truth.covisible, len(truth.covisible)),
            "verified_at_most": share(truth.verified, len(truth.verified), len(found)),
            "confirmed_at_most": share(truth.confirmed, len(truth.confirmed), len(found)),
            "covisible_at_most": share(truth.covisible, len(truth.covisible), len(found)),
            "kept_of_the_unverified": share(found - truth.verified, result["pairs"] - len(truth.verified)),
            "kept_of_the_not_covisible": share(found - truth.covisible, result["pairs"] - len(truth.covisible)),
            "registered": registered_with(exhaustive, place, truth, found),
        }
        result["strategies"][name] = row
        print(scene.name, name, row, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    return result


def together(scenes: list[Path], work: Path, size: int, keypoints: int) -> dict[str, Any]:
    """All upright scenes as one collection, where most pairs show different things."""
    images, place = work / "together" / "images", work / "together" / "workspace"
    images.mkdir(parents=True, exist_ok=True)
    truth: Pairs = set()
    for scene in scenes:
        if not (images / scene.name).exists():
            (images / scene.name).symlink_to(scene / "images", target_is_directory=True)
    sfm_match.extract(images, place, size=size, max_keypoints=keypoints)
    with Workspace(place) as opened:
        names = list(Collection.load(opened).usable)
    index = {name: i for i, name in enumerate(names)}
    for scene in scenes:
        own = truth_of(work / scene.name / "exhaustive")
        where = [index[f"{scene.name}/{name}"] for name in own.names]
        truth |= {pair(where[i], where[j]) for i, j in own.covisible}
    related = Counter(name.split("/")[0] for name in names)
    every = len(names) * (len(names) - 1) // 2
    unrelated = every - sum(count * (count - 1) // 2 for count in related.values())
    result: dict[str, Any] = {"images": len(names), "pairs": every, "covisible": len(truth), "unrelated": unrelated}
    result["strategies"] = {}
    for name, options in strategies("", Path()).items():
        if not {"prune", "num_images"} & options.keys() and options["strategy"] != "retrieval":
            continue
        report = sfm_match.pairs(place, overwrite=True, **options)
        with Workspace(place):
            found = {pair(*row) for row in read_pairs(place / "pairs.txt", names).tolist()}
        strange = {(i, j) for i, j in found if names[i].split("/")[0] != names[j].split("/")[0]}
        row = {
            "pairs": len(found),
            "seconds": round(report.seconds, 2),
            "covisible": share(found & truth, len(truth)),
            "kept_of_the_unrelated": share(strange, unrelated),
        }
        result["strategies"][name] = row
        print("together", name, row, flush=True)
    return result


def markdown(result: dict[str, Any]) -> str:
    head = (
        "| scene | strategy | pairs | of all | verified pairs found | confirmed pairs found | covisible pairs found "
        "| kept of the unverified | kept of the not covisible | registered |"
    )
    lines = [head, "|---" * 10 + "|"]

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    for scene, one in result["scenes"].items():
        by_seed = ", ".join(map(str, one.get("registered_by_seed", [])))
        registered = f"{one['registered']}" + (f" (again, by seed: {by_seed})" if by_seed else "")
        whole = " | ".join(f"{one[kind]} {kind}" for kind in KINDS)
        lines.append(f"| {scene} | exhaustive | {one['pairs']} | 1.00 | {whole} | – | – | {registered} |")
        for name, row in one["strategies"].items():
            found = [
                percent(row[kind]) + (f" (of at most {percent(row[limit])})" if row.get(limit, 1) < 1 else "")
                for kind, limit in ((kind, f"{kind}_at_most") for kind in KINDS)
            ]
            shown = f"{name} ({row['chosen']})" if name == "auto" else name
            lines.append(
                f"| {scene} | {shown} | {row['pairs']} | {row['pairs'] / one['pairs']:.2f} | "
                f"{' | '.join(found)} | {percent(row['kept_of_the_unverified'])} | "
                f"{percent(row['kept_of_the_not_covisible'])} | {row['registered']}/{one['registered']} |"
            )
    if result.get("together"):
        one = result["together"]
        lines += ["", f"All upright scenes as one collection: {one['images']} images, {one['pairs']} pairs.", ""]
        lines += ["| strategy | pairs | of all | covisible pairs found | kept of the unrelated |", "|---" * 5 + "|"]
        for name, row in one["strategies"].items():
            lines.append(
                f"| {name} | {row['pairs']} | {row['pairs'] / one['pairs']:.2f} | "
                f"{percent(row['covisible'])} | {percent(row['kept_of_the_unrelated'])} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of scenes")
    parser.add_argument("--work", type=Path, required=True, help="folder of workspaces, kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", default=SCENES, help="of scenes, commas between")
    parser.add_argument("--only", default="", help="strategies, semicolons between; default: all")
    parser.add_argument("--seeds", type=int, default=0, help="also map exhaustive's pairs with so many seeds")
    parser.add_argument("--size", type=int, default=1024, help="long side, pixels")
    parser.add_argument("--keypoints", type=int, default=2048, help="of an image, at most")
    options = parser.parse_args()

    scenes = [(options.scenes / name).resolve() for name in options.names.split(",")]
    only = {name.strip() for name in options.only.split(";") if name.strip()}
    result: dict[str, Any] = {
        **conditions(options.size, options.keypoints),
        "scenes": {},
    }
    work = options.work.resolve()
    for scene in scenes:
        result["scenes"][scene.name] = evaluate(scene, work, options.size, options.keypoints, only, options.seeds)
    upright = [scene for scene in scenes if scene.name not in TURNED]
    result["together"] = together(upright, work, options.size, options.keypoints) if not only else None
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{result['date']}_pairs"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    main()
