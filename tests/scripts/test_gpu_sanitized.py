"""What compute-sanitizer looks on runs to its end: on a GPU alone nobody would see that it does not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_run_ends_with_features_and_matches() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))}
    command = [sys.executable, "-m", "gpu.sanitized", "torch", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    keypoints, matches = (int(word) for word in last.split() if word.isdecimal())
    assert last.startswith("features and matches")  # what `gpu.drills` looks for
    assert keypoints > 0
    assert matches > 0
