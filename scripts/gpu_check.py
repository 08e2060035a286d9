"""Proves on a GPU machine what no other machine can: one command, one JSON file under scripts/benchmarks/results.

    python scripts/gpu_check.py                             # every engine that is here, the published L-B
    python scripts/gpu_check.py --device cpu --quick        # the same code on any machine, in a minute

It needs no network: without --weights the published networks are random, which changes no time; their ONNX files are
made with torch and onnx, or found in SFM_MATCH_WEIGHTS where another machine made them. First parity against float32,
then pairs a second by number of keypoints and images a second by engine, size and batch, with the share of the machine
that this is: the ceiling is an 8192 x 8192 x 8192 product and a copy, measured in the same run. `scripts/gpu_report.py`
draws it.
"""

import argparse
import contextlib
import gc
import itertools
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from exports.config import FAMILY
from exports.family import load_networks, random_networks
from exports.graphs import Normalise
from exports.keypoints import Detect
from exports.networks import DeDoDe, Describe
from sfm_match.block_matching import BlockMatcher
from sfm_match.config import ExtractOptions
from sfm_match.errors import SfmMatchError
from sfm_match.extractor import Extractor, runtime_for
from sfm_match.frames import plan_frame
from sfm_match.loader import Item, Loaded
from sfm_match.models import BUILT_IN, Model, Weights, find_model
from sfm_match.progress import Clock
from sfm_match.runtime import Runtime
from sfm_match.runtime.devices import cuda_of_driver, gpus, version_of, why_not
from sfm_match.runtime.ort import OrtRuntime
from sfm_match.runtime.torch import TorchRuntime, set_up_cudnn
from sfm_match.scene import cameras, render, room
from sfm_match.stages.match import BLOCK
from sfm_match.store.features import Features

RESULTS = Path(__file__).parent / "benchmarks" / "results"
CEILING = 8192  # side of the product


@dataclass
class Check:
    """Everything measured."""

    date: str
    command: str
    machine: dict[str, str]
    ceiling: dict[str, float] = field(default_factory=dict)
    parity: list[dict[str, Any]] = field(default_factory=list)
    extraction: list[dict[str, Any]] = field(default_factory=list)
    matching: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    model: str
    weights: Weights | None  # None: those in the package
    device: str  # cuda or cpu, of torch
    seconds: float  # of a measurement
    sizes: list[int]
    batches: list[int]
    keypoints: list[int]
    max_keypoints: int

    def networks(self, *, half: bool) -> Model:
        return find_model(self.model, self.weights, half=half)


def machine() -> dict[str, str]:
    facts = {"gpu": ", ".join(gpu.name for gpu in gpus()) or "none", "driver's CUDA": cuda_of_driver() or "none"}
    facts |= {"python": platform.python_version(), "torch": torch.__version__, "torch's CUDA": str(torch.version.cuda)}
    return facts | {name: version_of(name) or "not installed" for name in ("onnxruntime-gpu", "tensorrt-cu13")}


def rate(action: Callable[[], Any], finish: Callable[[], Any], seconds: float) -> float:
    """Calls a second, after three that warm up (plain, captured, replayed)."""
    for _ in range(3):
        action()
    finish()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or calls < 2:
        action()
        calls += 1
    finish()
    return calls / (time.perf_counter() - start)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ceiling(plan: Plan, side: int) -> dict[str, float]:
    """What the machine can: a product of matrices, and a copy within its memory."""
    device = plan.device
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    products = rate(lambda: a @ b, lambda: wait(device), plan.seconds)
    source, target = (torch.empty(64 << 20, dtype=torch.float32, device=device) for _ in range(2))
    copies = rate(lambda: target.copy_(source), lambda: wait(device), plan.seconds)
    tflops, gigabytes = products * 2 * side**3 / 1e12, copies * 2 * source.numel() * 4 / 1e9
    return {"product_tflops": round(tflops, 2), "copy_gb_per_s": round(gigabytes, 1), "product_side": side}


def engines(plan: Plan, check: Check) -> Iterator[tuple[str, Callable[[], Runtime], bool]]:
    """Name, how to make it, and whether its networks are in half precision."""
    half = plan.device == "cuda"
    yield ("torch half + graphs" if half else "torch"), lambda: TorchRuntime(plan.device), half
    if not half:
        cache = Path("unused")
        yield "ONNX Runtime, CPU, values bound", lambda: OrtRuntime("cpu", cache, on_device=True), False
    for name, device in (("ONNX Runtime CUDA", "cuda"), ("TensorRT", "tensorrt"), ("ORT TensorRT", "ort-tensorrt")):
        reason = why_not(device)
        if reason is None:
            yield name, lambda device=device: runtime_for(device)[0], True
        else:
            check.left_out[name] = reason


@cache
def rendered() -> list[NDArray[np.uint8]]:
    """Views of a room, (H, W, 3) uint8 RGB."""
    return [np.asarray(render(view, room()), np.uint8) for view in cameras(16)[4:8]]


def views(size: int, batch: int, divisor: int) -> Loaded:
    """A batch of rendered views, square."""
    side = size // divisor * divisor
    images = np.stack([cv2.resize(rendered()[i % len(rendered())], (side, side)) for i in range(batch)])
    frame = plan_frame((side, side), 1, side, divisor)
    return Loaded([Item(str(i), frame) for i in range(batch)], images, [None] * batch, {}, set())


def make_extractor(
    plan: Plan, runtime: Runtime, *, half: bool, batches: list[int], bucket: tuple[int, int]
) -> Extractor:
    """One engine for every batch, as in a job."""
    options = ExtractOptions(
        model=plan.model,
        max_keypoints=plan.max_keypoints,
        batch=str(max(batches)),
        weights=",".join(map(str, plan.weights.files)) or None if plan.weights else None,
        random_weights=bool(plan.weights and plan.weights.random),
    )
    return Extractor(plan.networks(half=half), options, Counter({bucket: 1000}), runtime)


def features(extractor: Extractor, batch: Loaded) -> dict[str, Features]:
    found = extractor.features(batch, Clock())
    return {name: one for name, one in found.items() if isinstance(one, Features)}


def parity(plan: Plan, check: Check) -> None:
    """Every engine against float32 on the CPU under ONNX Runtime, which the tests hold against torch and kornia."""
    divisor = FAMILY[plan.model].alignment
    batch = views(plan.sizes[0], 2, divisor)
    bucket = batch.items[0].frame.bucket
    reference = make_extractor(plan, OrtRuntime("cpu", Path("unused")), half=False, batches=[2], bucket=bucket)
    expected = features(reference, batch)
    for name, make, half in engines(plan, check):
        for precision in sorted({False, half}):
            with noted(check, f"parity {name}"):
                extractor = make_extractor(plan, make(), half=precision, batches=[2], bucket=bucket)
                found = features(extractor, batch)
                row = compare(expected, found)
                check.parity.append({"engine": name, "precision": "fp16" if precision else "fp32", **row})
                check.parity[-1]["redone"] = extractor.redone


def compare(expected: dict[str, Features], found: dict[str, Features]) -> dict[str, Any]:
    """Share of the keypoints that are there within half a pixel, and their descriptors' cosines."""
    near, cosines = [], []
    for name, theirs in expected.items():
        if name not in found:
            near.append(np.zeros(len(theirs.keypoints), bool))
            continue
        ours = found[name]
        apart = np.linalg.norm(theirs.keypoints[:, None] - ours.keypoints[None], axis=2)
        near.append(apart.min(axis=1) < 0.5)
        a, b = theirs.descriptors[near[-1]], ours.descriptors[apart.argmin(axis=1)[near[-1]]]
        cosines.append((a.astype(np.float32) * b.astype(np.float32)).sum(axis=1))
    joined = np.concatenate(cosines) if cosines else np.zeros(1)
    return {
        "keypoint_overlap": round(float(np.concatenate(near).mean()), 4),
        "descriptor_cosine_mean": round(float(joined.mean()), 6),
        "descriptor_cosine_least": round(float(joined.min()), 6),
        "images": len(found),
    }


def extraction(plan: Plan, check: Check, save: Callable[[], None]) -> None:
    member = FAMILY[plan.model]
    files = list(plan.networks(half=False).weights)
    networks = load_networks(member, files) if files else random_networks(member)
    for size in plan.sizes:
        work = flops(networks.detector, networks.descriptor, size // member.alignment * member.alignment)
        loads = {batch: views(size, batch, member.alignment) for batch in plan.batches}
        for amp in (False, True):
            name = "torch AMP" if amp else "torch eager fp32"
            for batch, loaded in loads.items():
                with noted(check, f"{name}, {size} px, batch {batch}"):
                    run = eager(plan, networks.detector, networks.descriptor, loaded, amp=amp)
                    each = rate(run, lambda: wait(plan.device), plan.seconds) * batch
                    record(check, save, name, size, batch, each, work)
                del run
                clear()
        for name, make, half in engines(plan, check):
            bucket = loads[plan.batches[0]].items[0].frame.bucket
            with noted(check, f"{name}, {size} px"):
                extractor = make_extractor(plan, make(), half=half, batches=plan.batches, bucket=bucket)
                for batch, loaded in loads.items():
                    with noted(check, f"{name}, {size} px, batch {batch}"):
                        each = stream_rate(extractor, loaded, plan.seconds) * batch
                        record(check, save, name, size, batch, each, work)
                del extractor
            clear()


def clear() -> None:
    """The next row has the GPU for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def stream_rate(extractor: Extractor, loaded: Loaded, seconds: float) -> float:
    """Batches a second, all lanes busy, from bytes in the host's memory to features in the host's memory.

    What comes first is not counted: each lane runs plainly, captures, and replays.
    """
    return steady(extractor.each(itertools.repeat(loaded), Clock()), 5 * extractor.lanes.count, seconds)


def steady(results: Iterator[Any], warm_up: int, seconds: float) -> float:
    """Results a second of an endless stream, without its beginning."""
    for _ in range(warm_up):
        next(results)
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < seconds:
        next(results)
        count += 1
    elapsed = time.perf_counter() - start
    results.close()  # type: ignore[attr-defined]
    return count / elapsed


def eager(plan: Plan, detector: DeDoDe, descriptor: DeDoDe, loaded: Loaded, *, amp: bool) -> Callable[[], Any]:
    """The networks as their authors run them, with the same start and end: bytes, and features in the host's memory."""
    device = plan.device
    normalise = Normalise().to(device)
    detect = Detect(detector, plan.max_keypoints).eval().to(device)
    describe = Describe(descriptor).eval().to(device)
    kind = torch.float16 if device == "cuda" else torch.bfloat16
    pixels = torch.from_numpy(loaded.images)

    def run() -> Any:
        with torch.inference_mode(), torch.autocast(device, kind, enabled=amp):
            image = normalise(pixels.to(device))
            keypoints, scores = detect(image)
            return keypoints.cpu(), scores.cpu(), describe(image, keypoints).cpu()

    return run


def flops(detector: DeDoDe, descriptor: DeDoDe, size: int) -> float:
    """Of one image through both networks, descriptors sampled before the last level, floating-point operations."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        device = next(detector.parameters()).device
        image = torch.zeros(1, 3, size, size, device=device)
        detector.eval()(image)
        Describe(descriptor).eval()(image, torch.zeros(1, 256, 2, device=device))
    return float(counter.get_total_flops())


def record(
    check: Check, save: Callable[[], None], name: str, size: int, batch: int, images: float, work: float
) -> None:
    row: dict[str, Any] = {"engine": name, "size": size, "batch": batch, "images_per_s": round(images, 2)}
    row["share_of_product"] = round(images * work / (check.ceiling["product_tflops"] * 1e12), 4)
    row["memory_gb"] = memory()
    check.extraction.append(row)
    print(json.dumps(row), flush=True)
    save()


def memory() -> float | None:
    """In use on the GPU at the end of a row, GB: engines keep what they needed at most."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return round((total - free) / 1e9, 2)


def matching(plan: Plan, check: Check, save: Callable[[], None]) -> None:
    """Tiles as a job has them: two blocks of images, every pair between them, two tiles in hand."""
    dimension = FAMILY[plan.model].descriptor.prototypes
    rng = np.random.default_rng(0)
    side = BLOCK if plan.device == "cuda" else 2
    pairs = np.array([(i, side + j) for i in range(side) for j in range(side)], np.int32)
    for count in plan.keypoints:
        block = [unit(rng.normal(size=(count, dimension))) for _ in range(2 * side)]
        for name, make, _ in engines(plan, check):
            with noted(check, f"matching, {name}, {count} keypoints"):
                runtime = make()
                matcher = BlockMatcher(runtime, 0.01, 20.0, images=2 * side, keypoints=count, dimension=dimension)
                tiles = runtime.lanes.each(itertools.repeat(block), partial(_tile, matcher, pairs))
                each = steady(tiles, 2 * runtime.lanes.count, plan.seconds) * len(pairs)
                traffic = each * count * count * 4 / (check.ceiling["copy_gb_per_s"] * 1e9)
                row = {"engine": name, "keypoints": count, "pairs_per_s": round(each, 1)}
                work = 2 * count * count * dimension
                row["share_of_product"] = round(each * work / (check.ceiling["product_tflops"] * 1e12), 4)
                row["matrix_passes_possible"] = round(1 / traffic, 1)  # of copies' bandwidth, at this rate
                row["memory_gb"] = memory()
                check.matching.append(row)
                print(json.dumps(row), flush=True)
                save()
                del matcher, tiles, runtime
            clear()


def _tile(matcher: BlockMatcher, pairs: NDArray[np.int32], block: list[NDArray[np.float16]]) -> int:
    return len(matcher.match(block, pairs))


def unit(rows: NDArray[np.float64]) -> NDArray[np.float16]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@contextlib.contextmanager
def noted(check: Check, what: str) -> Iterator[None]:
    """An engine that fails is a finding, not the end."""
    try:
        yield
    except (SfmMatchError, RuntimeError, torch.OutOfMemoryError) as error:
        check.left_out[what] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{what}: {check.left_out[what]}", file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="dedode-l-b", choices=sorted(FAMILY))
    parser.add_argument("--weights", type=Path, nargs="+", help="checkpoints; without: random ones")
    parser.add_argument("--sizes", type=numbers, default=[512, 784], help="of square images, pixels")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--keypoints", type=numbers, default=[1024, 2048, 4096, 8192], help="of matching")
    parser.add_argument("--max-keypoints", type=int, default=4096, help="of extraction")
    parser.add_argument("--quick", action="store_true", help="small sizes, nano: a minute on two cores")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.model, options.sizes, options.batches = "dedode-nano", [128], [1, 2]
        options.keypoints, options.max_keypoints = [256], 256
        torch.set_num_threads(1)  # two that wait for each other beside other work can be a hundred times slower
    set_up_cudnn()
    weights = Weights(tuple(options.weights or ()), random=not options.weights)
    plan = Plan(
        options.model,
        None if options.model in BUILT_IN and not options.weights else weights,
        options.device,
        0.1 if options.quick else 2.0,
        options.sizes,
        options.batches,
        options.keypoints,
        options.max_keypoints,
    )
    now = datetime.now().astimezone()
    check = Check(now.isoformat(timespec="seconds"), " ".join(sys.argv), machine())
    check.ceiling = ceiling(plan, 512 if options.quick else CEILING)
    path = options.out / f"{now:%Y-%m-%d}_gpu_check_{options.device}{'_quick' if options.quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:  # what is measured stands, whatever comes
        path.write_text(json.dumps(asdict(check), indent=1) + "\n", encoding="utf-8")

    with noted(check, "parity"):
        parity(plan, check)
    save()
    for step in (matching, extraction):
        with noted(check, step.__name__):
            step(plan, check, save)
    save()
    print(path)


if __name__ == "__main__":
    main()
