"""How a job grows with its collection: seconds, peak memory, bytes and files of every stage but mapping.

    python scripts/benchmarks/growth.py --place FOLDER --sizes 1000,10000,100000 --out scripts/benchmarks/results/growth

The photographs are JPEGs of 128 x 96 pixels, cut from seeded textures: a thousand make a field of 40 by 25, whose
neighbours overlap by four fifths. The true pipeline runs over them, each step in a process of its own:
dedode-nano at `--size 128` with few keypoints, retrieval of 20 partners an image, matching of each photograph with the
20 that follow, of which a quarter show the same, verification, adjustment. Matching is killed (kill -9) when half of
its pairs are done, and import twice: half way through verification, and half way through adjustment. The step that
follows takes up what is there, and tells how much of it that was. The steps that come last are measured again on the
finished workspace.

A step that is on record in FOLDER/SIZE/growth.json is not done again: a benchmark that was stopped goes on.
`--until SIZE:STEP=SECONDS` ends a step after so many seconds: its figures are then those of the part that was done. The
workspace is made whole in another way, so that the steps after it have all of it. Features: those of the first field,
their descriptors turned by another rotation for each field, so that images of one field look alike and those of two do
not. Matches: those of the first field, and a few by chance between fields. Verification: all matches are taken to fit.
What was filled in is told in the table. `--draw` makes the table and the picture again from the results.
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
from pathlib import Path
from typing import Any

HALF = 0.5
REPEATED = 3  # times that an up-to-date workspace is opened; the median is told
PROGRAM = Path(__file__).with_name("growth_steps.py")

Report = dict[str, Any]


# name -> method, part of it at which it is killed, what is told of it
STEPS: dict[str, tuple[str, tuple[str, float] | None, str]] = {
    "photographs": ("make", None, "(the photographs are made)"),
    "plan": ("plan", None, "plan, of a job that is to begin"),
    "extract": ("extract", None, "extract"),
    "pairs": ("pairs", None, "pairs, retrieval, 20 an image"),
    "pairs sequential": ("sequential", None, "pairs, sequential, overlap 20: those that are matched"),
    "match killed": ("match", ("match", HALF), "match, killed half way"),
    "match": ("match", None, "match, the rest"),
    "verify killed": ("import_", ("verify", HALF), "import, killed half way through verification"),
    "adjust killed": (
        "import_",
        ("adjust", HALF),
        "import, resumed, killed half way through adjustment",
    ),
    "import": ("import_", None, "import, the rest"),
    "report": ("report", None, "report"),
    "run again": ("run", None, "run, all up to date"),
    "match again": ("match", None, "match, up to date"),
    "import again": ("import_", None, "import, up to date"),
    "plan again": ("plan", None, "plan, all up to date"),
    "doctor": ("doctor", None, "doctor, every byte"),
}
FILLS = {"extract": "fill_features", "match killed": "fill_matches", "verify killed": "fill_verification"}
AGAIN = ("run again", "match again", "import again")


def in_child(step: str, place: Path, count: int, until: float | None) -> Report:
    """Runs a step in a process of its own. Seconds, peak memory and the load before it are told."""
    method, kill, _ = STEPS.get(step, (step, None, ""))
    asked = {"method": method, "place": str(place), "count": count, "kill": kill, "until": until}
    load = os.getloadavg()[0]
    began = time.monotonic()
    with (place / "child.log").open("a") as log:
        child = subprocess.Popen(
            [sys.executable, PROGRAM, json.dumps(asked)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert child.stdout is not None
        printed = child.stdout.read().replace(f"{place / 'work'}/", "")  # where this machine has it says nothing
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


def _seconds(step: Report) -> float:
    """Of a step, without the start of its process where that is known."""
    return float(step["step_s"] if "step_s" in step else step["wall_s"])


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
        if step in known["steps"]:
            continue
        rounds = REPEATED if step in AGAIN else 1
        every = [in_child(step, place, count, until.get(f"{count}:{step}")) for _ in range(rounds)]
        found = sorted(every, key=_seconds)[rounds // 2]
        known["steps"][step] = found
        tell(f"{count:,} {step}: {json.dumps(found)}")
        if "stopped" in found and step in FILLS:
            known["filled " + step] = in_child(FILLS[step], place, count, None)["filled"]
        if step in ("adjust killed", "import"):
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
            seconds = "–" if found is None else f"{_seconds(found):,.1f}"
            part = _part(found) if found is not None and "stopped" in found else ""
            others = ("–", "–") if found is None else (f"{found['cpu_s']:,.1f}", f"{found['peak_mb']:,.0f}")
            cells += [seconds + part, *others]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    loads = [step["load_before"] for one in results for step in one["steps"].values()]
    lines += ["", f"Load of the machine before a step: {min(loads)} to {max(loads)}."]
    lines += ["", "| files, MB | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
    last = [one.get("files import") or {} for one in results]
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


def _part(found: Report) -> str:
    """How much of a step was done before it was stopped."""
    return f" ({found['done']:,} of {found['total']:,})" if "done" in found else " (a part)"


def draw(results: list[Report], path: Path) -> None:
    """A picture: seconds and peak memory over the number of photographs, a line a step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5))
    shown = [step for step in STEPS if step != "photographs"]
    for number, step in enumerate(shown):
        found = [(one["images"], one["steps"][step]) for one in results if step in one["steps"]]
        colour = pyplot.get_cmap("tab20")(number)
        whole = [(count, one) for count, one in found if "stopped" not in one]
        parts = [(count, one) for count, one in found if "stopped" in one]
        counts, seconds = [count for count, _ in whole], [_seconds(one) for _, one in whole]
        left.plot(counts, seconds, marker="o", label=STEPS[step][2], color=colour)
        right.plot([count for count, _ in found], [one["peak_mb"] for _, one in found], color=colour)
        for some, inside in ((whole, colour), (parts, "white")):  # a part of a step is hollow
            places = [count for count, _ in some], [one["peak_mb"] for _, one in some]
            right.scatter(*places, color=inside, edgecolors=[colour], zorder=3)
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
    options = parser.parse_args()
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
