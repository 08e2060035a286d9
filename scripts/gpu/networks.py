"""Networks, engines and pictures for the parts: everything that most of them begin with."""

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from exports.registry import FAMILY
from exports.weights import Networks, load_networks, random_networks
from gpu import bare, weights
from gpu.plan import FUSED, ROOT, LeftOut, Settings, Work
from sfm_match.errors import NothingDone
from sfm_match.features.dedode import DeDoDeExtractor
from sfm_match.features.extractor import Found
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Item, Loaded
from sfm_match.job.progress import Clock
from sfm_match.models import BUILT_IN, DESCRIPTOR, DETECTOR, Model, Weights, find_model, half_name, zoo
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import OutOfMemory, Runtime, create_runtime
from sfm_match.runtime.torch import TorchRuntime

EXPORTED = ROOT / "networks"  # a folder for each model: ONNX files, checkpoints; `make gpu-kit` fills it
ENGINES_KEPT = ROOT / "build" / "engines"  # what TensorRT builds, from one task to the next
_NAMES = {False: (DETECTOR, DESCRIPTOR), True: (half_name(DETECTOR), half_name(DESCRIPTOR))}
_RECTANGLES = 60
E = TypeVar("E", bound=DeDoDeExtractor)

# pooch, which may not be here, would say the same
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfm-match"
os.environ.setdefault("SFM_MATCH_WEIGHTS", str(_CACHE))


def checkpoints(name: str) -> tuple[Path, ...]:
    """A model's weights: beside the exported networks, in the package, or as downloaded; none: random ones."""
    found = sorted((EXPORTED / name).glob("*.pt"))
    if found:
        return tuple(found)
    if name in BUILT_IN:
        return tuple(sorted(BUILT_IN[name].glob("*.safetensors")))
    try:
        return tuple(zoo.published_files(name, zoo.weights_dir()))
    except NothingDone:
        return ()


@cache
def networks(name: str) -> Networks:
    """A model in torch, float32, on the CPU."""
    files = list(checkpoints(name))
    return load_networks(FAMILY[name], files) if files else random_networks(FAMILY[name])


def model(name: str, engine: str, *, half: bool) -> Model:
    """A model for an engine. Torch needs no ONNX files; those for the others lie beside or are made with onnx.

    Raises:
        Missing: they neither lie beside nor can be made here.
    """
    if name in BUILT_IN:
        return find_model(name, half=half)
    files = checkpoints(name)
    detector, descriptor = (EXPORTED / name / file for file in _NAMES[half])
    if engine != "torch" and not (detector.is_file() and descriptor.is_file()):
        bare.require("onnx", "onnxscript", "onnxruntime", "h5py")
        return find_model(name, Weights(files, random=not files), half=half)
    if engine != "torch" and weights.read_recipe(EXPORTED / name):
        weights.fill(EXPORTED / name, networks(name))
    return Model(
        name=name,
        spec=FAMILY[name],
        source={},
        detector=detector,
        descriptor=descriptor,
        half=half,
        weights=files,
    )


def runtime(engine: str, settings: Settings, cache: Path = ENGINES_KEPT) -> Runtime:
    """An engine; on the CPU, too, values are bound and everything stays with the engine."""
    if engine in ("torch", FUSED):
        return torch_runtime(settings.device, fused=engine == FUSED)
    if engine == "cpu":
        from sfm_match.runtime.ort import OrtRuntime

        return OrtRuntime("cpu", cache, on_device=True)
    return create_runtime(engine, cache)


def torch_runtime(device: str, *, fused: bool) -> TorchRuntime:
    """Torch's own matching, or Triton's kernels, whether they gain anything or not.

    Raises:
        LeftOut, Missing: there can be no such kernels here.
    """
    if fused and device != "cuda":
        raise LeftOut("a Triton kernel needs a GPU")
    if fused:
        bare.require("triton")
    return TorchRuntime(device, fused=fused)


class Counting(DeDoDeExtractor):
    """Counts the calls of the networks, and those that the device had no memory for: each of them is a split."""

    most: int | None = None  # images a call that a pretended memory holds
    calls = splits = 0

    def _once(self, batch: Loaded, clock: Clock) -> Found:
        self.calls += 1  # workers may lose one of two: a count of none, or of some, is what matters
        try:
            if self.most is not None and len(batch.items) > self.most:
                raise OutOfMemory("pretended")
            return super()._once(batch, clock)
        except OutOfMemory:
            self.splits += 1
            raise


def extractor_of(
    kind: type[E],
    work: Work,
    name: str,
    *,
    half: bool,
    batch: int,
    buckets: Counter[tuple[int, int]],
    engine: Runtime | None = None,
) -> E:
    """As a job makes it.

    Args:
        kind: to make.
        work: the engine and the settings.
        name: of the model.
        half: networks in half precision.
        batch: images a call, at most.
        buckets: (width, height) of images to come -> how many; from `OWN_PROFILE` on, a shape has its own engine.
        engine: in place of a new one.
    """
    built_in = name in BUILT_IN
    options = ExtractOptions(
        model=name, max_keypoints=work.settings.max_keypoints, batch=str(batch), random_weights=not built_in
    )
    chosen = model(name, work.engine, half=half)
    return kind(chosen, options, buckets, engine or runtime(work.engine, work.settings))


extractor = partial(extractor_of, DeDoDeExtractor)


def usual(work: Work) -> Counting:
    """One for all sizes and batches of the settings, as in a job; tasks share what TensorRT builds for it."""
    buckets = Counter({(side_of(work.model, size),) * 2: 1000 for size in work.settings.sizes})
    batch = max(work.settings.batches)
    return extractor_of(Counting, work, work.model, half=work.cuda, batch=batch, buckets=buckets)


@cache
def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: noise at many scales under rectangles, corners everywhere; the same on every machine."""
    rng = np.random.default_rng(seed)
    total = torch.zeros(1, 3, height, width)
    cell = 64
    while cell >= 2:
        grid = torch.from_numpy(rng.normal(size=(1, 3, height // cell + 2, width // cell + 2)).astype(np.float32))
        total += F.interpolate(grid, size=(height, width), mode="bilinear") * cell**0.35
        cell //= 2
    total = 128 + 38 * (total - total.mean()) / total.std()
    image = total[0].permute(1, 2, 0).clamp(0, 255).numpy().astype(np.uint8)
    for _ in range(_RECTANGLES):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = (int(rng.integers(2, max(3, side // 8))) for side in (width, height))
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


def images(size: tuple[int, int], batch: int, divisor: int, seed: int = 0, *, padded: bool = False) -> Loaded:
    """A batch of pictures that differ.

    Args:
        size: (width, height) of what is asked for, pixels; rounded down to multiples of the divisor.
        padded: the pictures are smaller than their bucket, with padding at the right and below.
    """
    width, height = (max(divisor, side // divisor * divisor) for side in size)
    inside = (max(width * 7 // 8, 32), max(height * 7 // 8, 32)) if padded else (width, height)
    geometry = ImageGeometry(inside, 1, inside, (width, height))
    views = [_shifted(picture(seed + i % 4, height, width), 16 * (i // 4)) for i in range(batch)]
    stack = np.stack(views)
    if padded:  # as the loader pads: the last row and column again
        stack[:, :, inside[0] :] = stack[:, :, inside[0] - 1 : inside[0]]
        stack[:, inside[1] :] = stack[:, inside[1] - 1 : inside[1]]
    return Loaded([Item(f"{seed}-{i}", geometry) for i in range(batch)], stack, [None] * batch, {}, set())


def _shifted(image: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    return np.roll(image, by, axis=1)


def side_of(name: str, size: int) -> int:
    """Of a square image for a model, pixels: what is asked for, rounded down to what the model takes."""
    alignment = FAMILY[name].alignment
    return max(size // alignment, 1) * alignment


def square(name: str, size: int, batch: int) -> Loaded:
    """A batch of square pictures for a model."""
    side = side_of(name, size)
    return images((side, side), batch, FAMILY[name].alignment)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float16]:
    """(N, D) of unit length."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)


def wait(work: Work) -> None:
    """Until the GPU has done all that was asked of it, by whichever engine."""
    if work.cuda:
        torch.cuda.synchronize()


def clear() -> None:
    """The next case has the GPU for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rate(action: Callable[[], Any], work: Work) -> float:
    """Calls a second, after some that warm up (on a GPU plain, captured, replayed)."""
    for _ in range(3 if work.cuda else 1):
        action()
    wait(work)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < work.settings.seconds or calls < 2:
        action()
        calls += 1
    wait(work)
    return calls / (time.perf_counter() - start)


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


def memory_gb() -> float | None:
    """In use on the GPU, GB: engines keep what they needed at most."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return round((total - free) / 1e9, 2)
