"""Which pairs are accepted: true ones of scenes and planar sequences, against strangers and pictures of two scenes.

    python scripts/evaluate_acceptance.py --data DATA --work WORK --out scripts/benchmarks/results

DATA has `scenes/NAME/images` (perhaps K.txt, gt_cameras), `homographies/NAME` and `train/NAME`. Writes
`acceptance.json`, `acceptance.md` and `acceptance.png` (needs matplotlib). WORK is kept: another run resumes from it.

A pair of a scene is true where 15 of COLMAP's inliers, found without our acceptance, lie within 4 pixels of the
epipolar lines of the scene's model. A pair of a planar sequence is true where 15 matches lie within 3 pixels of where
its homography puts them. Strangers are all pairs of 40 unrelated pictures; crossed pairs, drawn at random, are of two
scenes (entry-P10 and fountain-P11 show one courtyard, and are left out against one another).
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_epipolar import distances, model_cameras
from evaluate_pairs import AGREES, SHARED, TURNED, pair, run_options
from evaluate_poses import evaluate
from evaluation.conditions import conditions
from evaluation.homographies import Sequence, apply

import sfm_match
from sfm_match.colmap.queries import MOST_IMAGES, PAIRS, image_names
from sfm_match.errors import NothingDone
from sfm_match.job.workspace import Workspace
from sfm_match.matching.acceptance import SIGNIFICANT, Verdict

SCENES = "fountain-P11,Herz-Jesus-P8,entry-P10,sceaux_castle,sacre_coeur,berlin,lund,garfield,fox"
STRANGERS = "bsds500,urban100,voc_subset"
ONE_PLACE = {"entry-P10", "fountain-P11"}
STRANGE_IMAGES, CROSSED_PAIRS, RIGHT_PIXELS = 40, 2500, 3.0


@dataclass
class Judged:
    """The pairs of one set."""

    kind: str  # scene, planar, strangers, crossed
    significance: dict[tuple[int, int], float]  # of each pair; +inf where no geometry was estimated
    accepted: set[tuple[int, int]]
    true: set[tuple[int, int]] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        true = len(self.true)
        return {
            "kind": self.kind,
            "pairs": len(self.significance),
            "true": true,
            "true_accepted": round(len(self.true & self.accepted) / true, 4) if true else None,
            "accepted": len(self.accepted),
            "accepted_share": round(len(self.accepted) / max(1, len(self.significance)), 4),
            **self.facts,
        }


def judged(workspace: Path, kind: str) -> Judged:
    """What `import` says of the pairs of a workspace."""
    names = image_names(workspace / "database.db")
    index = {name: i for i, name in enumerate(names)}
    connection = sqlite3.connect(workspace / "database.db")
    place = {image: index[name] for image, name in connection.execute("SELECT image_id, name FROM images")}
    rows = connection.execute(f"SELECT pair_id, significance, verdict FROM {PAIRS}").fetchall()
    connection.close()
    significance, accepted = {}, set()
    for number, value, verdict in rows:
        i, j = (place[image] for image in divmod(number, MOST_IMAGES))
        significance[pair(i, j)] = float("inf") if value is None else value
        if verdict == Verdict.ACCEPTED:
            accepted.add(pair(i, j))
    return Judged(kind, significance, accepted)


def run(images: Path, workspace: Path, **options: Any) -> dict[str, Any]:
    """The whole job; what came of it."""
    try:
        report = sfm_match.run(images, workspace, **options)[-1]
    except NothingDone as error:
        return {"registered": 0, "models": 0, "line": str(error).split(": ", 1)[-1]}
    facts = report.facts
    return {"registered": facts["registered"], "models": facts["models"], "odd": facts["odd"]}


def scene(folder: Path, work: Path) -> Judged:
    """A scene as its user would run it, every pair matched."""
    options = run_options(folder, 1024, 4096)
    facts = run(folder / "images", work, pairs="exhaustive", **options)
    found = judged(work, "scene")
    found.facts = facts
    model = work / "sparse" / "0"
    if not model.is_dir():
        return found
    if (folder / "gt_cameras").is_dir():
        score = evaluate(model, folder / "gt_cameras")
        found.facts |= {"auc@1": score["auc@1"], "auc@5": score["auc@5"]}
    everything = work.with_name(f"{work.name}-all")  # COLMAP's own choice, from the same matches
    if not (everything / "database.db").exists():
        shutil.rmtree(everything, ignore_errors=True)
        for part in ("features", "matches"):
            shutil.copytree(work / part, everything / part, copy_function=os.link)
        for file in ("images.json", "pairs.txt", "sfm-match.json"):
            shutil.copy(work / file, everything / file)
        cameras = {key: value for key, value in options.items() if key.startswith("camera")}
        sfm_match.import_(everything, overwrite=True, accept_pairs="all", adjust_keypoints=False, **cameras)
    index = {name: i for i, name in enumerate(image_names(work / "database.db"))}
    for a, b, apart in distances(everything / "database.db", model_cameras(model)):
        if (apart <= AGREES).sum() >= SHARED:
            found.true.add(pair(index[a], index[b]))
    return found


def planar(folder: Path, work: Path) -> Judged:
    """The five pairs of image 1 of a sequence, judged by the true homographies."""
    images = work.with_name(f"{work.name}-images")
    images.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("img*"):
        if not (images / path.name).exists():
            (images / path.name).symlink_to(path.resolve())
    listed = work.with_name(f"{work.name}.txt")
    names = sorted(path.name for path in images.iterdir())
    listed.write_text("".join(f"{names[0]}\t{name}\n" for name in names[1:]))
    sfm_match.run(images, work, pairs="list", match_list_path=listed, mapper="none", adjust_keypoints=False)
    found = judged(work, "planar")
    sequence, index = Sequence(folder), {name: i for i, name in enumerate(names)}
    for name, matched_a, matched_b in matches_of(work, names[0]):
        b_from_a = sequence.homography(int(Path(name).stem.removeprefix("img")))
        off = np.linalg.norm(apply(b_from_a, matched_a) - matched_b, axis=1)
        if (off <= RIGHT_PIXELS).sum() >= SHARED:
            found.true.add(pair(0, index[name]))
    return found


def matches_of(workspace: Path, first: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of the pairs of an image: the other's name, and the matched points of both, (M, 2) each."""
    from sfm_match.images.collection import Collection
    from sfm_match.stages.base import Job
    from sfm_match.stages.listed_matches import iter_matches
    from sfm_match.stages.state import iter_features

    with Workspace(workspace) as place:
        job = Job(place, Collection.load(place))
        features = job.features
        points = {name: one.keypoints for name, one in iter_features(features, descriptors=False)}
        found = []
        for a, b, matches in iter_matches(job.matches, features):
            rows = dict(zip((a, b), matches.indices.T, strict=True))
            other = b if a == first else a
            found.append((other, points[first][rows[first]], points[other][rows[other]]))
        return found


def strangers(folder: Path, work: Path) -> Judged:
    """Forty pictures evenly chosen from a folder in which each shows something else."""
    every = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = work.with_name(f"{work.name}-images")
    images.mkdir(parents=True, exist_ok=True)
    for path in every[:: len(every) // STRANGE_IMAGES][:STRANGE_IMAGES]:
        if not (images / path.name).exists():
            (images / path.name).symlink_to(path.resolve())
    facts = run(images, work, pairs="exhaustive")
    found = judged(work, "strangers")
    found.facts = facts
    return found


def crossed(scenes: list[Path], work: Path) -> Judged:
    """Pairs of two scenes."""
    images = work.with_name(f"{work.name}-images")
    images.mkdir(parents=True, exist_ok=True)
    for one in scenes:
        if not (images / one.name).exists():
            (images / one.name).symlink_to((one / "images").resolve(), target_is_directory=True)
    names = [path.relative_to(images).as_posix() for one in scenes for path in sorted((images / one.name).iterdir())]
    place = {name: "one place" if name.split("/")[0] in ONE_PLACE else name.split("/")[0] for name in names}
    every = [(a, b) for a, b in combinations(names, 2) if place[a] != place[b]]
    listed = work.with_name(f"{work.name}.txt")
    chosen = random.Random(0).sample(every, min(CROSSED_PAIRS, len(every)))
    listed.write_text("".join(f"{a}\t{b}\n" for a, b in chosen))
    sfm_match.run(images, work, pairs="list", match_list_path=listed, mapper="none", adjust_keypoints=False)
    return judged(work, "crossed")


def curve(sets: list[Judged]) -> list[tuple[float, float, float]]:
    """(threshold, precision, recall) of the geometry's significance, for the pairs that pass the first look."""
    rows = [
        (value, one.kind in ("scene", "planar") and two in one.true)
        for one in sets
        for two, value in one.significance.items()
        if one.kind in ("strangers", "crossed") or two in one.true
    ]
    total = sum(true for _, true in rows)
    points: list[tuple[float, float, float]] = []
    for threshold in (0, -1, -2, -3, -4, -5, -6, -7, -8, -10, -12, -15, -20, -30):
        taken = [true for value, true in rows if value < threshold]
        points.append((threshold, round(sum(taken) / max(1, len(taken)), 5), round(sum(taken) / max(1, total), 5)))
    return points


def draw(points: list[tuple[float, float, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([recall for *_, recall in points], [precision for _, precision, _ in points], "o-", color="0.3")
    for threshold, precision, recall in points:
        axes.annotate(f"{threshold:g}", (recall, precision), textcoords="offset points", xytext=(4, -10), fontsize=7)
        if threshold == SIGNIFICANT:
            axes.plot([recall], [precision], "o", color="tab:orange", label="default")
    axes.set(xlabel="recall of true pairs", ylabel="precision", title="accepted pairs, by log10 of false alarms")
    axes.legend()
    figure.savefig(path, dpi=120)


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    columns = ("pairs", "true", "true_accepted", "accepted", "accepted_share", "registered", "models", "auc@1", "auc@5")
    lines = [f"| set | kind | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, row in rows.items():
        values = " | ".join("–" if row.get(key) is None else str(row[key]) for key in columns)
        lines.append(f"| {name} | {row['kind']} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of workspaces, kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", default=SCENES, help="names, commas between")
    parser.add_argument("--strangers", default=STRANGERS, help="folders of DATA/train, commas between")
    options = parser.parse_args()

    data, work = options.data.resolve(), options.work.resolve()
    scenes = [data / "scenes" / name for name in options.scenes.split(",") if name]
    sets: dict[str, Judged] = {}

    def note(name: str, found: Judged) -> None:
        sets[name] = found
        print(name, found.row(), flush=True)

    for name in filter(None, options.strangers.split(",")):
        note(name, strangers(data / "train" / name, work / f"strangers-{name}"))
    for folder in sorted((data / "homographies").iterdir()):
        note(folder.name, planar(folder, work / f"planar-{folder.name}"))
    for folder in scenes:
        note(folder.name, scene(folder, work / folder.name))
    upright = [folder for folder in scenes if folder.name not in TURNED]
    if len(upright) > 1:
        note("pictures of two scenes", crossed(upright, work / "crossed"))
    points = curve(list(sets.values()))
    rows = {name: one.row() for name, one in sets.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    result = {**conditions(1024, 4096), "sets": rows, "curve": points}
    (options.out / "acceptance.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "acceptance.md").write_text(markdown(rows))
    draw(points, options.out / "acceptance.png")


if __name__ == "__main__":
    main()
