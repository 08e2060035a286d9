"""The command line of `scripts/gpu_check.py`."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from gpu import bare, runner, worker
from gpu.plan import BASELINE, ENGINES, FUSED, NANO_MODEL, ROOT, Settings
from gpu.rows import Results, ResultsError

RESULTS = ROOT / "scripts" / "benchmarks" / "results"
TASK = "--task"  # the program as a task of its own
DONE, REFUSED, NOT_YET = 0, 2, 3  # exit status
_ENGINES = (*ENGINES, "cpu", BASELINE, FUSED)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _parsed(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = runner.known_parts()
    parser.add_argument("--device", choices=("cuda", "cpu"), help="without: cuda where torch has it")
    parser.add_argument("--parts", type=_words, default=(), help=f"only these, of {', '.join(parts)}")
    parser.add_argument("--engines", type=_words, default=(), help=f"only these, of {', '.join(_ENGINES)}")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop then; call again to go on")
    parser.add_argument("--models", type=_words, default=("dedode-l-b", NANO_MODEL, "dedode-l-g"))
    parser.add_argument("--sizes", type=_numbers, default=(512, 784), help="of square images, pixels")
    parser.add_argument("--batches", type=_numbers, default=(1, 2, 4, 8, 16))
    parser.add_argument("--keypoints", type=_numbers, default=(1024, 2048, 4096, 8192), help="of matching")
    parser.add_argument("--max-keypoints", type=int, default=4096, help="of extraction")
    parser.add_argument("--quick", action="store_true", help="nano, small sizes: a minute on two cores")
    parser.add_argument("--programs", action="store_true", help="with --quick on the CPU: tasks as on a GPU, no copies")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder, or a file .jsonl, which is gone on with")
    parser.add_argument("--fresh", action="store_true", help="a new file in the folder, whatever is there")
    options = parser.parse_args()
    for name, known in (("parts", parts), ("engines", _ENGINES)):
        for one in getattr(options, name):
            if one not in known:
                parser.error(f"--{name} {one}: accepted are {', '.join(known)}")
    if options.quick:
        options.models, options.sizes, options.batches = (NANO_MODEL,), (128,), (2,)
        options.keypoints, options.max_keypoints = (256,), 256
    return options


def main(program: Path) -> int:
    """`program` is the file that a task runs."""
    description = sys.modules["__main__"].__doc__
    options = _parsed(description)
    deadline = time.monotonic() + 60 * options.minutes
    device = options.device or _default_device()
    settings = Settings(
        device,
        options.quick,
        options.models,
        options.sizes,
        options.batches,
        options.keypoints,
        options.max_keypoints,
        0.1 if options.quick else 2.0,
    )
    fork = None
    if device == "cpu" and options.quick and not options.programs:
        _preload(settings)
        fork = worker.run
    try:
        path = runner.place(options.out, settings, fresh=options.fresh)
        results = Results(path)
        try:
            with path.with_suffix(".log").open("ab") as log:
                task = [sys.executable, str(program), TASK]
                run = runner.Runner(results, settings, task, log, deadline, options.parts, options.engines, fork)
                done = run.run()
        finally:
            results.close()
    except ResultsError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return REFUSED
    print(f"{path}: {'done' if done else 'not done yet: call again to go on'}")
    return DONE if done else NOT_YET


def _preload(settings: Settings) -> None:
    """What copies of this process then have: importing takes longer than a quick task."""
    bare.stand_in()
    from gpu import networks, proofs, speed, steps  # noqa: F401
    from gpu.roofs import network_roof

    if not bare.missing(("onnxruntime",)):
        import onnxruntime  # noqa: F401
    for name in settings.models:
        side = networks.side_of(name, settings.sizes[0])
        network_roof(name, side, side, settings.max_keypoints, half=False)  # torch's `meta` kernels load for seconds


def _default_device() -> str:
    """Asked in another process: this one must stay free of CUDA."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.split()[-1] if found.returncode == 0 and found.stdout.split() else "cpu"
