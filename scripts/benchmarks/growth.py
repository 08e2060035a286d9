"""How a job grows with its collection: seconds, peak memory, bytes and files of every stage but mapping.

    python scripts/benchmarks/growth.py --place FOLDER --sizes 1000,10000,100000 --out scripts/benchmarks/results/growth

The photographs are JPEGs of 128 x 96 pixels, cut from seeded textures: a thousand make a field of 40 by 25, whose
neighbours overlap by four fifths (`photographs`). The true pipeline runs over them, each step in a process of its own:
dedode-nano at `--size 128` with few keypoints, retrieval of 20 partners an image, matching of each photograph with the
20 that follow, of which a quarter show the same, verification, adjustment. Matching is killed (kill -9) when half of
its pairs are done, and import twice: half way through verification, and half way through adjustment. The step that
follows takes up what is there, and tells how much of it that was. The steps that come last are measured again on the
finished workspace.

A step that is on record in FOLDER/SIZE/growth.json is not done again: a benchmark that was stopped goes on.
`--until SIZE:STEP=SECONDS` ends a step after so many seconds: its figures are then those of the part that was done. The
workspace is made whole in another way, so that the steps after it have all of it. Features: those of the first field,
their descriptors turned by another rotation for each field, so that images of one field look alike and those of two do
not. Matches: some by chance. Verification: none (`--no-verify`), which the steps that follow are measured with. What
was filled in is told in the table. `--draw` makes the table and the picture again from the results.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 128, 96  # of a photograph, pixels
ACROSS, DOWN = 24, 20  # pixels between neighbours
FIELD = (40, 25)  # photographs of one texture, by columns and rows
KEYPOINTS, PARTNERS, OVERLAP = 96, 20, 20
HALF = 0.5
FILLED = 20  # matches of a pair that are filled in
PLAIN = "not-verified"  # a file that says that the database was made without verification
REPEATED = 3  # times that an up-to-date workspace is opened; the median is told

Report = dict[str, Any]


def texture(number: int) -> Any:
    """(H, W, 3) uint8: noise of all scales, and bright and dark shapes whose corners a network finds."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    width, height = (FIELD[0] - 1) * ACROSS + WIDTH, (FIELD[1] - 1) * DOWN + HEIGHT
    made = np.zeros((height, width, 3), np.float32)
    for scale in (4, 9, 20, 45, 100):
        small = rng.normal(0, 14, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        made += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    made += 128
    for _ in range(width * height // 500):
        centre = rng.uniform((0, 0), (width, height))
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        corners = centre + rng.uniform(3, 12) * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        cv2.fillPoly(made, [corners.astype(np.int32)], rng.uniform(0, 255, 3).tolist())
    return np.clip(made, 0, 255).astype(np.uint8)


def photographs(folder: Path, count: int) -> None:
    """Writes `count` JPEGs, a folder for every texture. Those of a texture that is finished are left as they are."""
    import cv2

    columns, rows = FIELD
    for number in range(-(-count // (columns * rows))):
        place = folder / _field(number)
        wanted = min(count - number * columns * rows, columns * rows)
        if place.is_dir() and sum(1 for _ in place.iterdir()) >= wanted:
            continue
        place.mkdir(parents=True, exist_ok=True)
        whole = texture(number)
        for one in range(wanted):
            row, column = divmod(one, columns)
            column = columns - 1 - column if row % 2 else column  # there and back, as one flies
            top, left = row * DOWN, column * ACROSS
            cut = whole[top : top + HEIGHT, left : left + WIDTH]
            cv2.imwrite(str(place / f"{one:05d}.jpg"), cut, [cv2.IMWRITE_JPEG_QUALITY, 92])


class Steps:
    """What a process of its own does. Each step returns what it tells, beside its time and its memory."""

    def __init__(self, place: Path, count: int, kill_at: tuple[str, float] | None, until: float | None) -> None:
        self.images, self.work, self.count = place / "images", place / "work", count
        self._kill, self._until, self._began = kill_at, until, time.monotonic()

    def told(self, what: str, done: int, total: int) -> None:
        """Kills this process, with all its threads, where it is to be killed."""
        if self._kill is not None and what == self._kill[0] and done >= self._kill[1] * total:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._until is not None and time.monotonic() - self._began > self._until:
            print(json.dumps({"stopped": what, "done": done, "total": total}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def make(self) -> Report:
        photographs(self.images, self.count)
        return {}

    def plan(self) -> Report:
        from sfm_match.commands.plan.job import plan

        made = plan(self.images, self.work, **self._run_options())
        return {"pairs": made.pairs.pairs, "stages": {one.stage: one.done for one in made.stages}}

    def extract(self) -> Report:
        import sfm_match

        return _of(sfm_match.extract(self.images, self.work, on_progress=self.told, **self._extraction()))

    def sequential(self) -> Report:
        import sfm_match

        return _of(sfm_match.pairs(self.work, overwrite=True, **self._pairs()))

    def pairs(self) -> Report:
        import sfm_match

        return _of(sfm_match.pairs(self.work, strategy="retrieval", num_images=PARTNERS))

    def match(self) -> Report:
        import sfm_match

        return _of(sfm_match.match(self.work, on_progress=self.told))

    def import_(self) -> Report:
        import sfm_match

        return _of(sfm_match.import_(self.work, on_progress=self.told, **self._import()))

    def fill_features(self) -> Report:
        """Writes the units that are open, from what the first field's images have."""
        import numpy as np

        from sfm_match.images.collection import Collection
        from sfm_match.job.workspace import Workspace
        from sfm_match.stages.state import iter_features, recorded_features
        from sfm_match.store.features import Features, UnitResult, unit_path, write_unit

        place = Workspace(self.work)
        collection = Collection.load(place)
        found = recorded_features(place, collection)
        first = dict(iter_features(found, [name for name in found.counts if name.startswith(_field(0))]))
        for unit, names in found.open_units.items():
            made = {}
            for name in names:
                field, _, file = name.partition("/")
                like = first[f"{_field(0)}/{file}"]
                turned = like.descriptors.astype(np.float32) @ _rotation(int(field.removeprefix("field")))
                made[name] = Features(like.keypoints, like.scores, turned.astype(np.float16))
            signatures = {name: collection.records[name].signature for name in names}
            result = UnitResult(made, {}, signatures)
            write_unit(unit_path(place.features, unit), result, found.fingerprint, turned.shape[1])
        return {"filled": sum(map(len, found.open_units.values()))}

    def fill_matches(self) -> Report:
        """Writes the blocks that are open, with some matches by chance."""
        import numpy as np

        from sfm_match.images.collection import Collection
        from sfm_match.job.workspace import Workspace
        from sfm_match.stages.pair_blocks import plan_blocks
        from sfm_match.stages.state import recorded_features, recorded_matches
        from sfm_match.store.matches import Matches, PairBlock, write_block

        place, rng = Workspace(self.work), np.random.default_rng(0)
        collection = Collection.load(place)
        features = recorded_features(place, collection)
        found = recorded_matches(place, collection, features)
        scores = np.full(FILLED, 0.5, np.float16)
        for plan in plan_blocks(place.matches, found.fingerprint, found.names, features, found.open_pairs):
            counts = [features.counts[name] for name in plan.images]
            made = []
            for pair in plan.pairs:
                sides = [np.sort(rng.permutation(counts[image])[:FILLED]) for image in pair]
                least = min(map(len, sides))
                indices = np.stack([side[:least] for side in sides], axis=1).astype(np.uint32)
                made.append(Matches(indices, scores[:least]))
            write_block(plan.path, PairBlock(found.fingerprint, plan.images, plan.pairs, made))
        return {"filled": len(found.open_codes)}

    def import_plain(self) -> Report:
        import sfm_match

        (self.work.parent / PLAIN).touch()
        return _of(sfm_match.import_(self.work, overwrite=True, **self._import()))

    def report(self) -> Report:
        import sfm_match

        return _of(sfm_match.report(self.work))

    def run(self) -> Report:
        import sfm_match

        reports = sfm_match.run(self.images, self.work, **self._run_options())
        return {"done": sum(one.done for one in reports), "cached": sum(one.cached for one in reports)}

    def doctor(self) -> Report:
        from sfm_match.commands.workspace_files import checks
        from sfm_match.job.workspace import Workspace

        return {"damaged": sum(one.trouble for one in checks(Workspace(self.work)))}

    def _extraction(self) -> dict[str, Any]:
        return {"size": 128, "max_keypoints": KEYPOINTS}

    def _pairs(self) -> dict[str, Any]:
        return {"strategy": "sequential", "overlap": OVERLAP, "quadratic_overlap": False}

    def _import(self) -> dict[str, Any]:
        return {"verify": False} if (self.work.parent / PLAIN).exists() else {}

    def _run_options(self) -> dict[str, Any]:
        return {**self._extraction(), **self._pairs(), **self._import(), "mapper": "none"}


def _field(number: int) -> str:
    """The folder of a texture's photographs."""
    return f"field{number:04d}"


@cache
def _rotation(field: int) -> Any:
    """(64, 64) float32, of the descriptors of a field that are filled in."""
    import numpy as np

    rotation, _ = np.linalg.qr(np.random.default_rng(field).normal(size=(64, 64)))
    return rotation.astype(np.float32)


def _of(report: Any) -> Report:
    spent = {what: round(seconds, 2) for what, seconds in report.spent.items()}
    numbers = {key: value for key, value in report.facts.items() if isinstance(value, int | float)}
    return {"done": report.done, "cached": report.cached, "spent": spent, "facts": numbers, "detail": report.detail}


# name -> method, part of it at which it is killed, what is told of it
STEPS: dict[str, tuple[str, tuple[str, float] | None, str]] = {
    "photographs": ("make", None, "(the photographs are made)"),
    "plan": ("plan", None, "plan, of a job that is to begin"),
    "extract": ("extract", None, "extract"),
    "pairs": ("pairs", None, f"pairs, retrieval, {PARTNERS} an image"),
    "pairs sequential": ("sequential", None, f"pairs, sequential, overlap {OVERLAP}: those that are matched"),
    "match killed": ("match", ("match", HALF), "match, killed half way"),
    "match": ("match", None, "match, the rest"),
    "verify killed": ("import_", ("verify", HALF), "import, killed half way through verification"),
    "adjust killed": (
        "import_",
        ("adjust", HALF),
        "import, resumed, killed half way through adjustment",
    ),
    "import": ("import_", None, "import, the rest"),
    "import plain": ("import_plain", None, "import, without verification"),
    "report": ("report", None, "report"),
    "run again": ("run", None, "run, all up to date"),
    "match again": ("match", None, "match, up to date"),
    "import again": ("import_", None, "import, up to date"),
    "plan again": ("plan", None, "plan, all up to date"),
    "doctor": ("doctor", None, "doctor, every byte"),
}
FILLS = {"extract": "fill_features", "pairs": None, "match killed": "fill_matches", "verify killed": None}
OF_VERIFICATION = ("adjust killed", "import")
AGAIN = ("run again", "match again", "import again")


def in_child(step: str, place: Path, count: int, until: float | None) -> Report:
    """Runs a step in a process of its own. Seconds, peak memory and the load before it are told."""
    method, kill, _ = STEPS.get(step, (step, None, ""))
    asked = {"method": method, "place": str(place), "count": count, "kill": kill, "until": until}
    load = os.getloadavg()[0]
    began = time.monotonic()
    with (place / "child.log").open("a") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(asked)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    told = json.loads(printed.splitlines()[-1]) if printed.strip() else {}
    killed = child.returncode == -signal.SIGKILL
    if child.returncode and not (killed and (kill is not None or "stopped" in told)):
        raise SystemExit(f"{step}: exit status {child.returncode}; see {place / 'child.log'}")
    return {
        "wall_s": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
        "load_before": round(load, 2),
        "killed": killed,
        **told,
    }


def as_child(asked: Mapping[str, Any]) -> None:
    """The process of a step: prints what it tells as JSON."""
    import sfm_match  # noqa: F401 - the start of the program is not part of a step's seconds
    from sfm_match.cli import main  # noqa: F401
    from sfm_match.stages.base import STAGES

    if asked["method"] != "make":
        for one in STAGES:
            one.load()
    kill = tuple(asked["kill"]) if asked["kill"] is not None else None
    steps = Steps(Path(asked["place"]), asked["count"], kill, asked["until"])
    began = time.monotonic()
    told = getattr(steps, asked["method"])()
    print(json.dumps({"step_s": round(time.monotonic() - began, 3), **told}), flush=True)


def files_of(work: Path) -> dict[str, dict[str, int]]:
    """Files and bytes of a workspace, by what is in its folder."""
    found: dict[str, dict[str, int]] = {}
    for parent, _, files in os.walk(work):
        for file in files:
            path = Path(parent, file)
            kind = path.relative_to(work).parts[0]
            one = found.setdefault(kind, {"files": 0, "bytes": 0})
            one["files"] += 1
            one["bytes"] += path.stat().st_size
    return found


def measure(place: Path, count: int, until: Mapping[str, float], tell: Callable[[str], None]) -> Report:
    """All steps over so many photographs; those on record are not done again."""
    place.mkdir(parents=True, exist_ok=True)
    record = place / "growth.json"
    known: Report = json.loads(record.read_text()) if record.exists() else {"images": count, "steps": {}}
    for step in STEPS:
        stopped = {one for one, found in known["steps"].items() if "stopped" in found}
        left_out = OF_VERIFICATION if "verify killed" in stopped else ("import plain",)
        if step in known["steps"] or step in left_out:
            continue
        rounds = REPEATED if step in AGAIN else 1
        every = [in_child(step, place, count, until.get(f"{count}:{step}")) for _ in range(rounds)]
        found = sorted(every, key=lambda one: float(one.get("step_s", one["wall_s"])))[rounds // 2]
        known["steps"][step] = found
        tell(f"{count:,} {step}: {json.dumps(found)}")
        if "stopped" in found and (fill := FILLS[step]) is not None:
            known["filled " + step] = in_child(fill, place, count, None)["filled"]
        if step in ("adjust killed", "import", "import plain"):
            known["files " + step] = files_of(place / "work")
        record.write_text(json.dumps(known, indent=1) + "\n")
    return known


def table(results: list[Report]) -> str:
    """Markdown: a row a step, seconds and peak memory for each number of photographs."""
    sizes = [f"{one['images']:,}" for one in results]
    columns = " | ".join(f"{size}: s | CPU s | MB" for size in sizes)
    lines = [f"| | {columns} |", "|---|" + "---|---|---|" * len(sizes)]
    for step, (_, _, words) in STEPS.items():
        cells = []
        for one in results:
            found = one["steps"].get(step)
            seconds = "–" if found is None else f"{found.get('step_s', found['wall_s']):,.1f}"
            part = f" ({found['done']:,} of {found['total']:,})" if found is not None and "stopped" in found else ""
            others = ("–", "–") if found is None else (f"{found['cpu_s']:,.1f}", f"{found['peak_mb']:,.0f}")
            cells += [seconds + part, *others]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    lines += ["", "| files, MB | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
    last = [one.get("files import") or one.get("files import plain") or {} for one in results]
    kinds = dict.fromkeys(kind for held in last for kind in held)
    for kind in sorted(kinds):
        cells = []
        for every in last:
            held = every.get(kind)
            cells.append("–" if held is None else f"{held['files']:,}, {held['bytes'] / 1e6:,.1f}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    for one in results:
        for key, number in one.items():
            if key.startswith("filled "):
                lines += [
                    "",
                    f"{one['images']:,} photographs: {number:,} of {key.removeprefix('filled ')} are filled in.",
                ]
    return "\n".join(lines) + "\n"


def draw(results: list[Report], path: Path) -> None:
    """A picture: seconds and peak memory over the number of photographs, a line a step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5))
    for step, (_, _, words) in STEPS.items():
        if step == "photographs":
            continue
        found = [(one["images"], one["steps"][step]) for one in results if step in one["steps"]]
        whole = [(count, one) for count, one in found if "stopped" not in one]
        counts = [count for count, _ in whole]
        left.plot(counts, [one.get("step_s", one["wall_s"]) for _, one in whole], marker="o", label=words)
        right.plot(counts, [one["peak_mb"] for _, one in whole], marker="o")
    for axes, title in ((left, "seconds"), (right, "peak memory, MB")):
        axes.set(xscale="log", xlabel="photographs", title=title)
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    figure.legend(loc="lower center", ncol=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="folder for photographs and workspaces; it takes some 30 GB")
    parser.add_argument("--sizes", default="1000,10000,100000", help="photographs")
    parser.add_argument("--until", action="append", default=[], help="SIZE:STEP=SECONDS: measure its first part")
    parser.add_argument("--out", type=Path, help="of the results: .json, .md and .png are added")
    parser.add_argument("--draw", action="store_true", help="table and picture of the results that are there")
    parser.add_argument("--remove", action="store_true", help="remove the photographs and the workspace of each size")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        as_child(json.loads(options.child))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if options.draw:
        results = json.loads(options.out.with_suffix(".json").read_text())["results"]
    else:
        until = {name: float(seconds) for name, _, seconds in (one.partition("=") for one in options.until)}
        results = []
        for size in map(int, options.sizes.split(",")):
            place = options.place.resolve() / f"{size:06d}"
            results.append(measure(place, size, until, lambda line: print(line, flush=True)))
            if options.remove:
                shutil.rmtree(place / "images")
                shutil.rmtree(place / "work")
        if options.out is not None:
            whole = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "results": results}
            options.out.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    print(table(results))
    if options.out is not None:
        options.out.with_suffix(".md").write_text(table(results), encoding="utf-8")
        draw(results, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
