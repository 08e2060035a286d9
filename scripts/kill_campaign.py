"""Kills `run` with SIGKILL at random times, resumes it, and compares with an undisturbed run: byte by byte.

    python scripts/kill_campaign.py [--kills 200 --seed 0 --workers 2 --out results.jsonl]

Half of the times are uniform over the run, the others over its stages, of which some are short. In every third job two
processes share the work (`--devices cpu,cpu`); what the killed one leaves of them is still alive when the job resumes.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from campaign import isolated, job
from jobs import stored

STAGES = ("extract", "pairs", "match", "import", "reconstruct")
VIEWS, WIDTH = 6, 320
TWO = ["--devices", "cpu,cpu"]


@dataclass(frozen=True)
class Undisturbed:
    """What every resumed run has to equal."""

    images: Path
    width: int
    content: dict[str, Any]
    seconds: dict[bool, dict[str, float]]  # with two processes or one -> of each stage


def undisturbed(
    folder: Path, images: Path | None = None, width: int = WIDTH, processes: tuple[bool, ...] = (False, True)
) -> Undisturbed:
    """Runs the job with one process, and with two (True), in `folder`: their results are equal.

    Args:
        folder: of the workspaces.
        images: photographs; None: some are rendered.
        width: of the photographs, pixels.
        processes: which of the two.
    """
    if images is None:
        images = folder / "images"
        job.photographs(images, VIEWS, width)
    seconds: dict[bool, dict[str, float]] = {}
    found = []
    for two in processes:
        workspace = folder / ("two" if two else "one")
        arguments = [*job.arguments(images, workspace, width), "--json", *(TWO if two else [])]
        ended = isolated.run(arguments, conditions=job.SMALL_UNITS, seconds=300)
        if ended.status:
            raise RuntimeError(f"the undisturbed run failed: {ended.err}")
        lines = [json.loads(line) for line in ended.out[0].splitlines()]
        seconds[two] = {line["stage"]: line["seconds"] for line in lines} | {"report": 0.3}
        seconds[two]["start"] = max(0.05, ended.seconds - sum(seconds[two].values()))
        found.append(content(workspace))
    if found[0] != found[-1]:
        raise RuntimeError(f"two processes differ from one: {differences(found[0], found[-1])}")
    return Undisturbed(images, width, found[0], seconds)


def content(workspace: Path) -> dict[str, Any]:
    """Features, matches, database and lists as `stored` tells them; models byte by byte."""
    models = {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in sorted((workspace / "sparse").rglob("*"))
        if path.suffix in (".bin", ".ply")
    }
    return {**stored(workspace), **models}


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


def kill_once(base: Undisturbed, folder: Path, number: int, seed: int) -> dict[str, Any]:
    """Kills one job, resumes it, compares. Returns the row of the results."""
    dice, workspace = random.Random(f"{seed} {number}"), folder / f"job{number}"
    two = number % 3 == 2 and True in base.seconds
    expected = base.seconds[two]
    arguments = [*job.arguments(base.images, workspace, base.width), "--json", *(TWO if two else [])]
    killed = isolated.Commands([arguments], conditions=job.SMALL_UNITS)
    if number % 2:  # uniform in a stage
        at = dice.randrange(len(STAGES) + 1)
        _await(killed, at)
        wait = dice.uniform(0, ({"report": expected["report"]} | expected)[[*STAGES, "report"][at]])
    else:
        wait = dice.uniform(0, sum(expected.values()))
    time.sleep(wait)
    printed = killed.out()
    killed.kill()
    ended = killed.finish()
    where = _stage(printed, workspace, over=ended.signal == 0)
    resumed = isolated.run(arguments, conditions=job.SMALL_UNITS, seconds=120)
    row: dict[str, Any] = {"number": number, "seed": seed, "processes": 2 if two else 1, "stage": where}
    row["resumed"] = resumed.fault() or (f"status {resumed.status}" if resumed.status else "")
    row["err"] = resumed.err[0][:500]
    row["different"] = [] if row["resumed"] else differences(content(workspace), base.content)
    row["left"] = [str(p.relative_to(workspace)) for p in workspace.rglob("*") if _left(p)]
    if not (row["resumed"] or row["different"] or row["left"]):
        shutil.rmtree(workspace, ignore_errors=True)
    return row


def _left(path: Path) -> bool:
    return ".tmp-" in path.name or path.name in ("database.db.partial", "database.aligned")


def _await(commands: isolated.Commands, stages: int) -> None:
    """Until so many stages have ended."""
    limit = time.monotonic() + isolated.SECONDS
    while commands.out().count("\n") < stages and time.monotonic() < limit:
        time.sleep(0.005)


def _stage(printed: str, workspace: Path, *, over: bool) -> str:
    """Where the kill hit, of lines that tell of the stages that had ended, and the files that stand."""
    if over:
        return "after the end"
    done = printed.count("\n")
    stage = (*STAGES, "report")[min(done, len(STAGES))]
    if stage == "import":
        if (workspace / "database.aligned").exists():
            return "import, adjust"
        return "import, verify" if (workspace / "database.db.partial").exists() else "import, begin or end"
    if stage == "extract" and not (workspace / "images.json").exists():
        return "start"
    return stage


def campaign(kills: int, seed: int, workers: int, out: Path | None, folder: Path) -> list[dict[str, Any]]:
    """Rows of `kills` kills."""
    base, rows, lock = undisturbed(folder), [], threading.Lock()

    def done(row: dict[str, Any]) -> None:
        with lock:
            rows.append(row)
            if out is not None:
                isolated.written(out, [row])

    with ThreadPoolExecutor(workers) as pool:
        for row in pool.map(partial(kill_once, base, folder, seed=seed), range(kills)):
            done(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """By the stage that was hit."""
    lines = ["| stage hit | kills | of them two processes | resumed and equal | different | failed | files left |"]
    lines.append("|---|---|---|---|---|---|---|")

    def line(name: str, some: list[dict[str, Any]]) -> str:
        kinds = Counter("failed" if r["resumed"] else "different" if r["different"] else "equal" for r in some)
        two, left = sum(r["processes"] == 2 for r in some), sum(bool(r["left"]) for r in some)
        return (
            f"| {name} | {len(some)} | {two} | {kinds['equal']} | {kinds['different']} | {kinds['failed']} | {left} |"
        )

    order = ["start", "extract", "pairs", "match", "import, begin or end", "import, verify", "import, adjust"]
    order += ["reconstruct", "report", "after the end"]
    lines += [line(name, some) for name in order if (some := [r for r in rows if r["stage"] == name])]
    return "\n".join([*lines, line("all", rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="jobs side by side")
    parser.add_argument("--out", type=Path, help="rows as lines of JSON, appended")
    parser.add_argument("--keep", type=Path, help="folder of the jobs; those that differ stay in it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        rows = campaign(chosen.kills, chosen.seed, chosen.workers, chosen.out, folder)
    print(table(rows))
    print(f"\n{len(rows)} kills in {time.monotonic() - began:.0f} s")
    bad = [row for row in rows if row["resumed"] or row["different"] or row["left"]]
    for row in bad:
        print(json.dumps(row))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
