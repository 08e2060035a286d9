"""What seldom happens, made to happen: short memory, half precision that fails; and the verdicts of other programs."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpu import bare
from gpu.plan import ROOT, Failed, LeftOut, Work
from gpu.processes import run_beside

_TAIL = 600  # characters
_TESTS_SECONDS, _SANITIZER_SECONDS = 270.0, 330.0


def tests(work: Work) -> None:
    """`pytest -m gpu`: what the project's own tests say of this machine."""
    work.case("pytest -m gpu", partial(_tests, work))


def _tests(_work: Work) -> Mapping[str, Any]:
    bare.require("pytest", "h5py", "cv2", "tqdm", "safetensors")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")]
    if not files:
        raise LeftOut("no tests in this copy of the sources")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", *map(str, files)]
    try:
        done = run_beside(command, seconds=_TESTS_SECONDS, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"took longer than {_TESTS_SECONDS:.0f} s") from error
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    seen = {**counts, "status_of_pytest": done.returncode, "said": done.stdout[-_TAIL:]}
    if done.returncode:
        raise Failed("pytest failed", **seen)
    if not counts.get("passed"):
        raise LeftOut(f"all skipped: {' '.join(done.stdout.split())[-_TAIL // 2 :]}")
    return seen


def memory(work: Work) -> None:
    """A GPU that is nearly full: batches are split, and give what they gave before."""
    work.case("batches are split", partial(_memory, work))


def _memory(work: Work) -> Mapping[str, Any]:
    import numpy as np
    import torch

    from gpu import networks
    from sfm_match.job.progress import Clock
    from sfm_match.store.features import Features

    size, batch = work.settings.sizes[-1], max(work.settings.batches)
    extractor = networks.usual(work)
    batch = min(batch, extractor.batch)
    loaded = networks.square(work.model, size, batch)
    expected = extractor.features(networks.square(work.model, size, 1), Clock())  # what comes first, before it is full
    filler: list[Any] = []
    extractor.calls = 0
    if work.cuda and not work.quick:
        networks.wait(work)
        networks.clear()
        free, _ = torch.cuda.mem_get_info()
        before = free
        single = 1.5 * 1700 * networks.side_of(work.model, size) ** 2 / 2  # bytes of an image, at most; half precision
        piece = 256 << 20
        while free > 2 * single + piece:
            filler.append(torch.empty(piece, dtype=torch.uint8, device="cuda"))
            free, _ = torch.cuda.mem_get_info()
    else:
        before = free = 0
        extractor.most = 1  # too little to fill a GPU for: pretended
    short = extractor.features(loaded, Clock())
    splits, calls = extractor.splits, extractor.calls
    filler.clear()
    extractor.most = None
    networks.clear()
    after = extractor.features(loaded, Clock())
    again = extractor.splits - splits
    first = next(iter(expected))
    theirs, ours = short[first], expected[first]
    equal = (
        isinstance(theirs, Features)
        and isinstance(ours, Features)
        and np.array_equal(theirs.descriptors, ours.descriptors)
    )
    seen = {
        "batch": batch,
        "splits": splits,
        "calls": calls,
        "free_gb": round(before / 1e9, 2),
        "left_gb": round(free / 1e9, 2),
        "splits_afterwards": again,
        "first_image_bitwise": bool(equal),
    }
    missing = [name for found in (short, after) for name, one in found.items() if not isinstance(one, Features)]
    if missing or len(short) != batch:
        raise Failed(f"without features: {missing[:3]}, {len(short)} of {batch} images", **seen)
    if not splits and batch > 1:
        raise Failed("the whole batch fitted: the drill shows nothing", **seen)
    if again:
        raise Failed("memory was still short when it was free again", **seen)
    return seen


def redo(work: Work) -> None:
    """Half precision that fails on some images: they are done again in float32, the others stay."""
    work.case("one image of each batch", partial(_redo, work))


def _redo(work: Work) -> Mapping[str, Any]:
    from gpu import networks
    from gpu.proofs import alike
    from sfm_match.features.dedode import DeDoDeExtractor
    from sfm_match.features.extractor import NOT_FINITE, Found
    from sfm_match.images.loader import Loaded
    from sfm_match.job.progress import Clock

    class Failing:
        """Networks that give no finite value for the first image."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def features(self, batch: Loaded, clock: Clock) -> Found:
            found = dict(self._inner.features(batch, clock))
            found[batch.items[0].name] = NOT_FINITE
            return found

    class Drilled(DeDoDeExtractor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._networks = Failing(self._networks)

    size, batch = work.settings.sizes[0], 2
    side = networks.side_of(work.model, size)
    loaded = networks.square(work.model, size, batch)
    common: dict[str, Any] = {"batch": batch, "buckets": Counter({(side, side): 1000})}
    full = networks.extractor(work, work.model, half=False, **common).features(loaded, Clock())
    extractor = networks.extractor_of(Drilled, work, work.model, half=True, **common)
    runs = 3
    for _ in range(runs):
        found = extractor.features(loaded, Clock())
    name = loaded.items[0].name
    same = alike({name: full[name]}, found, half=False)
    seen = {"redone": extractor.redone, "expected": runs, **same}
    if extractor.redone != runs:
        raise Failed("not as many as failed were done again", **seen)
    return seen


def sanitizer(work: Work) -> None:
    """NVIDIA's compute-sanitizer over a run of nano: memory out of bounds, reads of what was never written."""
    for tool in ("memcheck", "initcheck"):
        work.case(tool, partial(_sanitizer, work, tool))


def _sanitizer(work: Work, tool: str) -> Mapping[str, Any]:
    if not work.cuda:
        raise LeftOut("no GPU")
    folders = os.pathsep.join([os.environ.get("PATH", ""), *map(str, Path("/usr/local").glob("cuda*/bin"))])
    program = shutil.which("compute-sanitizer", path=folders)
    if program is None:
        raise LeftOut("no compute-sanitizer on this machine (CUDA toolkit)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))}
    environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # each tensor is an allocation of its own, with bounds
    command = [program, "--tool", tool, "--print-limit", "5", sys.executable, "-m", "gpu.sanitized", work.engine]
    try:
        done = run_beside(command, seconds=_SANITIZER_SECONDS / 2, environment=environment, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"took longer than {_SANITIZER_SECONDS / 2:.0f} s") from error
    summary = re.search(r"ERROR SUMMARY: (\d+) error", done.stdout)
    seen = {"errors": int(summary[1]) if summary else None, "said": done.stdout[-_TAIL:]}
    if summary is None or "features and matches" not in done.stdout:
        raise Failed(f"no verdict, exit status {done.returncode}", **seen)
    if int(summary[1]):
        raise Failed("errors", **seen)
    return seen
