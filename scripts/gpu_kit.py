"""One folder with all that a GPU machine without a network needs: `make gpu-kit`.

    python scripts/gpu_kit.py                    # build/gpu-kit: sources of the commit, networks, run.sh, WHEELS.txt
    python scripts/gpu_kit.py --models dedode-l-b --weights detector.pth descriptor.pth

There, `./run.sh` checks for 25 minutes, proofs first, and goes on where it stopped when it is called again;
`MINUTES=9 ./run.sh` fits where a command may take ten minutes. Results are in the folder `results`, to be copied back.
A folder `wheels` beside run.sh is used when it is there (WHEELS.txt says which are worth it); nothing is installed
outside of the kit. Without --weights the networks are random, which changes no time; MANIFEST.json says so.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for place in (str(ROOT), str(ROOT / "scripts")):
    if place not in sys.path:
        sys.path.insert(0, place)

MODELS = ("dedode-l-b",)  # nano comes with the sources
LIMIT = 64 << 20  # bytes
TEMPLATES = ROOT / "scripts" / "gpu" / "kit"  # run.sh, WHEELS.txt
LEFT_BEHIND = ("tests/data", "docs", "scripts/benchmarks/results", "scripts/evaluation", ".ci", ".github")


class KitError(Exception):
    """The kit cannot be made; the message says why."""


def git(*arguments: str) -> str:
    """Raises KitError with what git says."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise KitError(f"git: {error}") from error
    if done.returncode:
        raise KitError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def copy_sources(folder: Path, commit: str) -> None:
    """The files of the commit, without what no check reads."""
    archive = folder / "sources.tar"
    git("archive", "--format=tar", f"--output={archive}", commit)
    shutil.unpack_archive(archive, folder, filter="data")
    archive.unlink()
    for name in LEFT_BEHIND:
        shutil.rmtree(folder / name, ignore_errors=True)


def export_networks(folder: Path, models: list[str], weights: list[Path]) -> dict[str, Any]:
    """ONNX files of each model in both precisions, their weights outside (`gpu.weights`).

    Returns:
        For the manifest: by model, whose weights they are, and the files.
    """
    from gpu.export import export_without_weights

    found = {}
    for model in models:
        found[model] = export_without_weights(model, folder / "networks" / model, weights)
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def make_kit(folder: Path, models: list[str], weights: list[Path]) -> dict[str, Any]:
    """Makes the kit beside its place and moves it there; an earlier one is replaced, its `wheels` and `results` kept.

    Raises:
        KitError: git fails, or the kit is larger than `LIMIT`.
    """
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    if changed:
        print(f"gpu-kit: {len(changed.splitlines())} changed files are not committed, and not in the kit", flush=True)
    building = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        copy_sources(building, commit)
        networks = export_networks(building, models, weights)
        for file in TEMPLATES.iterdir():
            shutil.copy2(file, building / file.name)
        (building / "run.sh").chmod(0o755)
        (building / "COMMIT").write_text(f"{commit}\n", encoding="utf-8")
        manifest = {"commit": commit, "made": datetime.now().astimezone().isoformat(timespec="seconds")}
        described: dict[str, Any] = {**manifest, "networks": networks, "bytes": size_of(building)}
        (building / "MANIFEST.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        if described["bytes"] > LIMIT:
            raise KitError(f"{described['bytes']:,} bytes, more than the {LIMIT:,} that a kit may have")
        for kept in ("wheels", "results"):
            if (folder / kept).is_dir():
                shutil.move(folder / kept, building / kept)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return described


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit")
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="to export; nano comes with the sources")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="checkpoints; without: random weights")
    options = parser.parse_args()
    try:
        made = make_kit(options.out, options.models, options.weights)
    except KitError as error:
        print(f"gpu-kit: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {made['bytes'] / 2**20:.1f} MiB of {LIMIT >> 20}; there: ./run.sh, or MINUTES=9 ./run.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
