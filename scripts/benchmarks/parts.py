"""How extraction and matching scale: two processes that each do a part, against one process that does all.

    python scripts/benchmarks/parts.py --images DIR --rounds 3 --out scripts/benchmarks/results/parts.md

Each process has one thread (`SFM_MATCH_CORES=1`) and units of 8 images and blocks of 8, so that a few hundred images
make enough of them. One process and two take turns; what is told is the median over the rounds, of the processes' own
time for the stage (`StageReport.seconds`, the longer one of two) and of the time with their start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL_UNITS = 8
CODE = """
import json, sys
import sfm_match
from sfm_match.images import collection
from sfm_match.stages import match_blocks
collection.UNIT_SIZE = match_blocks.BLOCK = {units}
stage, part, images, work = sys.argv[1:]
given = {{}} if part == "all" else {{"part": part}}
report = sfm_match.extract(images, work, **given) if stage == "extract" else sfm_match.match(work, **given)
print(json.dumps({{"seconds": report.seconds, "done": report.done}}))
"""


def timed(stage: str, parts: list[str], images: Path, work: Path) -> dict[str, float]:
    """Runs the parts at once. Seconds: of the stage, and from start to end."""
    environment = {**os.environ, "SFM_MATCH_CORES": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE.format(units=SMALL_UNITS), stage, part, str(images), str(work)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in parts
    ]
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a part failed")
    return {"stage": max(one["seconds"] for one in told), "whole": time.monotonic() - began}


def round_of(images: Path) -> dict[str, dict[str, float]]:
    """`one` and `two` processes -> seconds of each stage."""
    found: dict[str, dict[str, float]] = {}
    for name, parts in (("one", ["all"]), ("two", ["1/2", "2/2"])):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "work"
            extracted = timed("extract", parts, images, work)
            chosen = ["--strategy", "sequential", "--overlap", "10", "--workspace", str(work)]
            subprocess.run([sys.executable, "-m", "sfm_match", "pairs", *chosen], check=True, stdout=subprocess.DEVNULL)
            matched = timed("match", parts, images, work)
        found[name] = {
            f"{stage} {what}": s
            for stage, one in (("extract", extracted), ("match", matched))
            for what, s in one.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rounds = [round_of(chosen.images.resolve()) for _ in range(chosen.rounds)]
    lines = ["| | one process, s | two parts, s | ratio |", "|---|---|---|---|"]
    for key in rounds[0]["one"]:
        one, two = (statistics.median(each[name][key] for each in rounds) for name in ("one", "two"))
        ratio = statistics.median(each["one"][key] / each["two"][key] for each in rounds)
        lines.append(f"| {key} | {one:.1f} | {two:.1f} | {ratio:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
