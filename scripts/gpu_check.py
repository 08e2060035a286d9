"""Proves on a GPU machine what no other machine can, row by row: whatever ends it, what is known is saved.

    python scripts/gpu_check.py                             # every engine that is here
    python scripts/gpu_check.py --minutes 9                 # again and again: each call goes on where the last stopped
    python scripts/gpu_check.py --device cpu --quick        # the same code on any machine, in a minute

It needs Python, torch and numpy, and no network. What needs more (h5py, cv2, ONNX Runtime, TensorRT, pytest) is left
out where that is missing, with the reason. Networks without weights at hand get random ones, which changes no time.
Each part and engine runs in a process of its own with a time limit; each result is a line of JSON, durable as soon as
it is known. `scripts/gpu_report.py` makes tables and a picture of it.

Exit status: 0 done, 3 the minutes are over (call again to go on), 2 the call was refused.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [folder for folder in (str(ROOT), str(ROOT / "scripts")) if folder not in sys.path]  # not installed

from gpu import command, worker  # noqa: E402

if __name__ == "__main__":
    sys.exit(worker.main() if sys.argv[1:2] == [command.TASK] else command.main(Path(__file__).resolve()))
