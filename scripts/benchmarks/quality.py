"""What each `--quality` takes and gives: seconds, peak memory, images registered, poses where there is truth.

    python scripts/benchmarks/quality.py --data DATA --out scripts/benchmarks/results/quality.md

DATA is that of `against_colmap.py`. Each job is a process of its own; intrinsics are known where there is truth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from against_colmap import largest_model, task_of

from sfm_match.options.quality import QUALITIES

SCENES = "fountain-P11,Herz-Jesus-P8,entry-P10,sceaux_castle,sacre_coeur,lund,garfield"
CODE = """
import json, resource, sys, time
import sfm_match
from sfm_match.errors import NothingDone
images, place, options = json.loads(sys.argv[1])
start = time.perf_counter()
try:
    sfm_match.run(images, place, strategy="exhaustive", report=False, **options)
except NothingDone as error:
    print(error, file=sys.stderr)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))
"""


def job(images: str, truth: Path, options: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        told = json.dumps([images, folder, options])
        ran = subprocess.run([sys.executable, "-c", CODE, told], capture_output=True, text=True, check=True)
        return json.loads(ran.stdout.splitlines()[-1]) | largest_model(Path(folder) / "sparse", truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", default=SCENES)
    parser.add_argument("--qualities", default=",".join(QUALITIES))
    options = parser.parse_args()
    load, qualities = os.getloadavg()[0], options.qualities.split(",")
    lines = [
        "| scene | " + " | ".join(f"{name}: images, AUC@1°, seconds, GB" for name in qualities) + " |",
        "|---" * (len(qualities) + 1) + "|",
    ]
    for scene in options.scenes.split(","):
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            task, truth = task_of(scene, options.data, 0, Path(folder))
            known: dict[str, Any] = {}
            if task.params:
                known = {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": task.params}
            for quality in qualities:
                found = job(task.images, truth, {**known, "quality": quality})
                accuracy = f"{found['auc@1']:.4f}" if "auc@1" in found else "–"
                cells.append(f"{found['registered']}, {accuracy}, {found['seconds']:.1f}, {found['peak_gb']:.1f}")
                print(scene, quality, cells[-1], flush=True)
        lines.append(f"| {scene} | {' | '.join(cells)} |")
    sizes = "; ".join(f"{name}: {q.size} px, {q.max_keypoints} keypoints" for name, q in QUALITIES.items())
    lines += ["", f"{sizes}. `scripts/benchmarks/quality.py`, load before {load:.1f}."]
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
