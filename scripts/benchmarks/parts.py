"""How extraction and matching scale: two workers of one thread each, against one process of one thread.

    python scripts/benchmarks/parts.py --images DIR --times 4 --out scripts/benchmarks/results/parts.md

The two workers are processes that each do a part (`--part 1/2` and `2/2`), or two that one process gives units to
(`--devices cpu,cpu`; those of a Ray cluster are given units in the same way). Each has one thread
(`SFM_MATCH_CORES=1`) and a processor of its own: as photographs are decoded beside the network, one process would have
a tenth of the second processor, too. Units are of 8 images and blocks of 8, so that a few hundred images make enough of
them; `--times` takes the photographs so many times. Pairs are sequential, 10 an image. The ways take turns; what is
told is the median over the rounds, of the processes' own time for the stage (`StageReport.seconds`, the longer one of
two parts) and of the time with their start, and of the ratios of each round the median, the least and the most. On two
processors with nothing else to do.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

SMALL_UNITS = 8
WAYS = {
    "one process": ["{}"],
    "two parts": ['{"part": "1/2"}', '{"part": "2/2"}'],
    "two workers": ['{"devices": "cpu,cpu"}'],
}
CODE = """
import json, sys
import sfm_match
from sfm_match.images import collection
from sfm_match.stages import match_blocks
collection.UNIT_SIZE = match_blocks.BLOCK = {units}
if __name__ == "__main__":
    stage, given, images, work = sys.argv[1:]
    given = json.loads(given)
    report = sfm_match.extract(images, work, **given) if stage == "extract" else sfm_match.match(work, **given)
    print(json.dumps({{"seconds": report.seconds, "done": report.done, "failed": report.failed}}))
"""
ROOT = Path(__file__).parents[2]
ONE_THREAD = {"SFM_MATCH_CORES": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ENVIRONMENT = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
Told = dict[str, float]


def timed(stage: str, given: list[str], images: Path, work: Path) -> tuple[Told, int]:
    """Runs processes at once, each with its options. Seconds of the stage and from start to end; images or pairs."""
    program = work.parent / "program.py"  # a file: workers are spawned, and find it again
    program.write_text(CODE.format(units=SMALL_UNITS), encoding="utf-8")
    began = time.monotonic()
    processors = sorted(os.sched_getaffinity(0))[:2]
    # of a process that starts two workers, both
    shares = [processors] if given == WAYS["two workers"] else [[one] for one in processors]
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), stage, one, str(images), str(work)],
            env=ENVIRONMENT,
            preexec_fn=partial(os.sched_setaffinity, 0, share),
            stdout=subprocess.PIPE,
            text=True,
        )
        for one, share in zip(given, shares, strict=False)
    ]
    said = [process.communicate()[0].splitlines() for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{stage}: a process failed")
    told = [json.loads(lines[-1]) for lines in said]
    seconds = {"stage": max(one["seconds"] for one in told), "whole": time.monotonic() - began}
    return seconds, sum(one["done"] for one in told)


def round_of(images: Path) -> tuple[dict[str, Told], dict[str, int]]:
    """Way -> seconds of each stage; how many images and pairs there were."""
    found: dict[str, Told] = {}
    counts: dict[str, int] = {}
    for way, given in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "work"
            extracted, counts["images"] = timed("extract", given, images, work)
            chosen = ["--strategy", "sequential", "--overlap", "10", "--workspace", str(work)]
            command = [sys.executable, "-m", "sfm_match", "pairs", *chosen]
            subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
            matched, counts["pairs"] = timed("match", given, images, work)
        found[way] = {
            f"{stage}, {what}": s
            for stage, one in (("extract", extracted), ("match", matched))
            for what, s in one.items()
        }
    return found, counts


def several_times(images: Path, times: int, folder: Path) -> Path:
    """A folder with the photographs so many times, under other names."""
    for number in range(times):
        for path in sorted(one for one in images.rglob("*") if one.is_file()):
            name = "_".join(path.relative_to(images).parts)
            shutil.copyfile(path, folder / f"{number:02d}_{name}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two processors are needed")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        images = several_times(chosen.images.resolve(), chosen.times, Path(folder))
        rounds, (counts, *_) = zip(*(round_of(images) for _ in range(chosen.rounds)), strict=True)
    one, *others = WAYS
    lines = [
        f"{counts['images']:,} images, {counts['pairs']:,} pairs; {os.cpu_count()} processors, one for each; load "
        f"{load:.2f} before; {chosen.rounds} rounds; seconds of the stage, and of the whole with the start of the "
        "processes.",
        "",
        f"| | {one}, s | " + " | ".join(f"{way}, s | ratio (least–most)" for way in others) + " |",
        "|---|" + "---|" * (1 + 2 * len(others)),
    ]
    for key in rounds[0][one]:
        cells = [f"{statistics.median(each[one][key] for each in rounds):.1f}"]
        for way in others:
            ratios = [each[one][key] / each[way][key] for each in rounds]
            cells.append(f"{statistics.median(each[way][key] for each in rounds):.1f}")
            cells.append(f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})")
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
