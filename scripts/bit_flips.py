"""Flips single bits in the files of a finished job, one a job, and looks what becomes of it.

    python scripts/bit_flips.py [--flips 10000 --seed 0 --workers 2 --out results.jsonl] [--only 'matches/*'] [--quick]

Every flip has a copy of the workspace. What later stages made of the file is deleted there, so that they read it, and
the job runs again; with --quick, only after what `doctor` does not name. Results are lines of JSON, by number: the same
command resumes where an earlier one ended.

outcome | means
---|---
harmless | the results equal those of the undisturbed job, byte by byte or row by row
mended | the same, after a line about it, or after it was made anew
noticed | other results, after a line about it
refused | a line and an exit status of 2 or 3: nothing was made of it
found | nothing was made of it; `doctor` names it
silent | other results with status 0, and no line
unread | only the flipped file differs; nothing that was run reads it, nothing names it
crash, hang, traceback, internal error | what must not be
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
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from campaign import isolated, job
from jobs import stored

VIEWS, WIDTH = 4, 160
NEVER = (".lock", "*-wal", "*-shm")  # empty between runs, or not part of the result
BAD = ("crash", "hang", "traceback", isolated.INTERNAL, "silent")

# A file -> what is deleted so that the job reads the file again. The first pattern that fits.
READ_BY = {
    "features/*": ("matches", "database.db", "sparse"),
    "matches/*": ("database.db", "sparse"),
    "images.json": ("database.db", "sparse"),
    "sfm-match.json": ("database.db", "sparse"),
    "pairs*.txt": ("database.db", "sparse"),
    "database.db": ("sparse",),
    "*": (),
}
RARE = {"report.html": 0.1, "sparse/0/points.ply": 0.3}  # are hit less often: they are for people, and large
EACH = 8  # every so manieth flip is looked at by `doctor` and `report`, too
DATABASE = ("cameras", "rigs", "frames", "images", "keypoints", "matches", "two_view_geometries")
MODELS = [f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D", "frames", "rigs")]


@dataclass(frozen=True)
class Base:
    """The finished job."""

    workspace: Path

    @property
    def images(self) -> Path:
        return self.workspace.parent / "images"

    @cached_property
    def results(self) -> dict[str, Any]:
        return results(self.workspace)

    @cached_property
    def files(self) -> list[str]:
        every = (p for p in sorted(self.workspace.rglob("*")) if p.is_file() and p.stat().st_size)
        names = [str(path.relative_to(self.workspace)) for path in every]
        return [name for name in names if not any(fnmatch(Path(name).name, never) for never in NEVER)]


def results(workspace: Path) -> dict[str, Any]:
    """All that people and programs use of a job, each part by its name. Times are left out."""
    found: dict[str, Any] = {**stored(workspace)}
    for name in (*MODELS, "sparse/0/points.ply", "unregistered.csv"):
        found[name] = (workspace / name).read_bytes()
    return found


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def one(base: Base, folder: Path, number: int, seed: int, only: str, *, quick: bool = False) -> dict[str, Any]:
    """The row of one flip: one of the numbers of a campaign, which chooses file, byte and bit."""
    dice = random.Random(f"{seed} {number}")
    files = [name for name in base.files if fnmatch(name, only)]
    # By the square root of the size: bytes of small files count more, large files are hit more often.
    weights = [(base.workspace / name).stat().st_size ** 0.5 * RARE.get(name, 1) for name in files]
    name = dice.choices(files, weights)[0]
    size = (base.workspace / name).stat().st_size
    # A third of the flips hits the first or the last 2 kB, which are headers or small tables.
    place = dice.randrange(size)
    if dice.random() < 1 / 3:
        place = dice.choice([dice.randrange(min(size, 2048)), size - 1 - dice.randrange(min(size, 2048))])
    bit = dice.randrange(8)
    workspace = job.copied(base.workspace, folder / f"flip{number}")
    flip(workspace / name, place, bit)
    row = {"number": number, "seed": seed, "file": name, "byte": place, "bit": bit}
    row |= named(workspace) if quick else {}
    if "outcome" not in row:
        row |= judged(base, workspace, name, thorough=number % EACH == 0)
    shutil.rmtree(workspace)
    return row


def named(workspace: Path) -> dict[str, Any]:
    """The outcome where `doctor` names the file, or falls over it; nothing where it does not."""
    ended = isolated.run(["doctor", "--workspace", workspace])
    if ended.fault():
        return {"outcome": ended.fault().split(" (")[0], "said": _shortened(ended)}
    return {"outcome": "found"} if ended.statuses[0] else {}


def judged(base: Base, workspace: Path, name: str, *, thorough: bool) -> dict[str, Any]:
    """Runs what reads the file, and compares."""
    damaged = (workspace / name).read_bytes()
    for later in next(later for pattern, later in READ_BY.items() if fnmatch(name, pattern)):
        target = workspace / later
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        if later == "database.db":  # what its last reader left
            for journal in workspace.glob("database.db-*"):
                journal.unlink()
    doctor = ["doctor", "--workspace", workspace]
    commands: list[list[object]] = [job.arguments(base.images, workspace, WIDTH)]
    if thorough:
        commands[:0] = [doctor, ["report", "--workspace", workspace]]
    elif name != "report.html":
        commands[0].append("--no-report")
    if name.startswith("sparse/"):
        commands.append(["convert", "--to", "ply", "--out", workspace / "out", "--workspace", workspace])
    ended = isolated.run(*commands, conditions=job.SMALL_UNITS)
    if ended.fault():
        return {"outcome": ended.fault().split(" (")[0], "said": _shortened(ended)}
    run = 2 if thorough else 0
    if ended.statuses[run] in (2, 3):
        return {"outcome": "refused", "said": _shortened(ended)}
    said = ended.err[run]
    try:
        different = _differences(base.results, results(workspace))
    except Exception as error:  # noqa: BLE001 - what no reader can read differs
        different = [f"{name}: {type(error).__name__}"]
    there = (workspace / name).exists()
    if not different:
        mended = said or not there or ((workspace / name).read_bytes() != damaged and not name.endswith(".db"))
        outcome = "mended" if mended else "harmless"
    elif said:
        outcome = "noticed"
    elif not all(_part_of(part, name) for part in different):
        outcome = "silent"
    else:
        health = isolated.run(doctor)
        if health.fault():
            return {"outcome": health.fault().split(" (")[0], "said": _shortened(health)}
        outcome = "found" if health.status else "unread"
    return {"outcome": outcome, "different": different, "said": said[:300]}


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))


def _part_of(part: str, name: str) -> bool:
    """Whether a part of the results is the flipped file's own content."""
    own = {"pairs": "pairs.txt", "failed": "failed.csv"} | dict.fromkeys(DATABASE, "database.db")
    return own.get(part, part) == name or part.startswith(f"{name}:")


def _shortened(ended: isolated.Finished) -> str:
    lines = [line for text in ended.err for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[:400]


def table(rows: list[dict[str, Any]]) -> str:
    """Outcomes by kind of file."""
    kinds = sorted({_kind(row["file"]) for row in rows})
    outcomes = ["harmless", "mended", "noticed", "refused", "found", "unread", *BAD]
    lines = ["| file | flips | " + " | ".join(outcomes) + " |", "|---" * (len(outcomes) + 2) + "|"]
    for kind in (*kinds, "all"):
        some = [row["outcome"] for row in rows if kind in ("all", _kind(row["file"]))]
        counts = Counter(some)
        lines.append(f"| {kind} | {len(some)} | " + " | ".join(str(counts[o] or "·") for o in outcomes) + " |")
    return "\n".join(lines)


def _kind(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/*.h5" if last.endswith(".h5") else name


def campaign(
    flips: int, seed: int, workers: int, out: Path | None, folder: Path, only: str = "*", *, quick: bool = False
) -> list[dict[str, Any]]:
    """Rows of the flips; those that `out` holds are not done again."""
    base = Base(job.finished(folder / "base", VIEWS, WIDTH))
    base.results, base.files  # noqa: B018 - computed before the threads begin
    rows = [row for row in (isolated.read(out) if out else []) if row["seed"] == seed and row["number"] < flips]
    known, lock = {row["number"] for row in rows}, threading.Lock()

    def work(number: int) -> None:
        row = one(base, folder, number, seed, only, quick=quick)
        with lock:
            rows.append(row)
            if out is not None:
                isolated.written(out, [row])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, [number for number in range(flips) if number not in known]))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="jobs side by side")
    parser.add_argument("--only", default="*", help="pattern of the files")
    parser.add_argument("--quick", action="store_true", help="what `doctor` names is found, and the job is not run")
    parser.add_argument("--out", type=Path, help="rows as lines of JSON")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = campaign(chosen.flips, chosen.seed, chosen.workers, chosen.out, place, chosen.only, quick=chosen.quick)
    print(table(rows))
    print(f"\n{len(rows)} flips in {time.monotonic() - began:.0f} s")
    bad = [row for row in rows if row["outcome"] in BAD]
    for row in bad[:40]:
        print(json.dumps(row))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
