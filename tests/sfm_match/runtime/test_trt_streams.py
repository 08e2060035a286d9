"""The native TensorRT backend on a fake GPU: contexts, captured graphs, and what threads and GPUs share."""

import gc
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_gpu import FakeCuda
from trt_parts import RANGE, image, nano

from sfm_match.features import device_graphs as parts
from sfm_match.features.dedode import DeDoDeExtractor
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.models import find_model
from sfm_match.options.stages import ExtractOptions

if TYPE_CHECKING:
    from sfm_match.runtime.trt import TrtRuntime


def test_equal_shapes_are_replayed_as_graphs(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    session = runtime.load(nano())
    results = []
    for turn in range(5):
        value = runtime.put("image", np.full((1, 3, 64, 64), turn, np.float32))
        results.append(runtime.get(session.run({"image": value})["logits"]).mean())
    assert fake_gpu.launches == 3
    assert len(set(results)) == 5  # a replay reads the new values
    assert not fake_gpu.destroyed
    fake_gpu.capture_fails = True
    other = runtime.load(nano())
    for _ in range(4):
        other.run({"image": runtime.put("image", image(1, 3, 64, 64))})
    assert fake_gpu.launches == 3  # what cannot be captured runs plainly


def test_shapes_in_turn_each_have_their_own_context_and_graph(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    """The fake refuses to change a context whose work is captured."""
    from sfm_match.runtime.ort import OrtSession
    from sfm_match.runtime.trt import TrtRuntime

    runtime, reference = TrtRuntime(tmp_path), OrtSession(find_model("dedode-nano").detector)
    session = runtime.load(nano())
    for turn in range(5):
        for shape in ((4, 3, 128, 128), (1, 3, 64, 64), (3, 3, 64, 128)):
            given = image(*shape) + turn
            found = runtime.get(session.run({"image": runtime.put("image", given)})["logits"])
            np.testing.assert_allclose(found, reference.run({"image": given})["logits"], atol=1e-4)
    assert fake_gpu.launches == 9


def test_few_contexts_are_kept(fake_gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfm_match.runtime import trt
    from sfm_match.runtime.trt import TrtRuntime

    monkeypatch.setattr(trt, "CONTEXTS", 2)
    runtime = TrtRuntime(tmp_path)
    session = runtime.load(nano())
    for _ in range(4):
        for height, width in ((64, 64), (64, 128), (128, 64)):
            session.run({"image": runtime.put("image", image(1, 3, height, width))})
    assert len(runtime.worker().prepared) == 2
    assert fake_gpu.launches == 0


def test_a_runtime_that_goes_leaves_nothing(fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path) -> None:
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    extractor = DeDoDeExtractor(find_model("dedode-nano"), options, buckets, runtime)
    single = replace(batch, items=batch.items[:1], images=batch.images[:1], masks=batch.masks[:1])
    for _ in range(3):  # threads, and what they hold, stay from one call to the next
        assert len(list(extractor.each([single] * 4, Clock()))) == 4
    assert fake_gpu.streams == 2
    assert fake_gpu.memory
    del extractor, runtime
    gc.collect()
    assert fake_gpu.destroyed == 2
    assert not fake_gpu.memory


def test_lanes_share_engines_and_nothing_else(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    import tensorrt as trt

    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    session = runtime.load(nano())
    means: dict[int, set[float]] = {}

    def work(level: int) -> None:
        for _ in range(6):
            value = runtime.put("image", np.full((1, 3, 64, 64), level, np.float32))
            means.setdefault(level, set()).add(float(runtime.get(session.run({"image": value})["logits"]).mean()))

    threads = [threading.Thread(target=work, args=(level,)) for level in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(found) for found in means.values()] == [1, 1]
    assert means[0] != means[1]
    assert fake_gpu.streams == 2
    assert len(trt.configs) == 1


def mixed_work(runtime: "TrtRuntime", rounds: int) -> list[np.ndarray]:
    """Two threads, two networks, shapes in turn: what they find, in order."""
    sessions = [runtime.load(nano()), runtime.load(parts.normalise(RANGE))]
    shapes = [(1, 64, 64), (2, 64, 128), (3, 128, 64), (4, 128, 128)]

    def work(number: int) -> np.ndarray:
        batch, height, width = shapes[number * 7 % len(shapes)]
        if number % 3:
            given = {"image": image(batch, 3, height, width) + number}
            return runtime.get(sessions[0].run({"image": runtime.put("image", given["image"])})["logits"])
        pixels = np.full((batch, height, width, 3), number % 255, np.uint8)
        return runtime.get(sessions[1].run({"pixels": runtime.put("pixels", pixels)})["image"])

    return [found for _, found in runtime.workers.each(range(rounds), work)]


@pytest.mark.parametrize("rounds", [120, pytest.param(200, marks=pytest.mark.slow)])
def test_two_lanes_spoil_no_capture(rounds: int, fake_gpu: FakeCuda, tmp_path: Path) -> None:
    """Memory grows, contexts are made and kernels loaded in one thread while the other captures."""
    from sfm_match.job.concurrency import WorkerThreads
    from sfm_match.runtime.trt import TrtRuntime

    fake_gpu.capture_seconds = 0.01
    runtime, alone = TrtRuntime(tmp_path), TrtRuntime(tmp_path)
    alone.workers = WorkerThreads(1)
    for ours, theirs in zip(mixed_work(runtime, rounds), mixed_work(alone, rounds), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fake_gpu.broken == 0
    assert fake_gpu.launches > rounds


def test_two_gpus_at_once(fake_gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers' threads, memory, streams and engines are of the GPU that was named; the fake refuses what mixes them."""
    from fake_gpu import GPU

    from sfm_match.runtime.trt import TrtRuntime

    monkeypatch.setattr("sfm_match.runtime.trt.gpus", lambda: (GPU, GPU))
    first, second = TrtRuntime(tmp_path), TrtRuntime(tmp_path, 1)
    for ours, theirs in zip(mixed_work(first, 20), mixed_work(second, 20), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(fake_gpu.device_of.values()) == {0, 1}
    fake_gpu.cudaSetDevice(0)  # this thread's; what it starts on the second GPU's stream is refused there
    session = second.load(nano())
    session.run({"image": second.put("image", image(1, 3, 64, 64))})
    fake_gpu.cudaSetDevice(0)
    with pytest.raises(AssertionError, match="work for another GPU"):
        session.run({"image": second.put("image", image(1, 3, 64, 64))})


def test_without_the_lock_captures_are_spoiled(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    """What the test above would see. A spoiled capture costs speed alone: the work was done, and is captured later."""
    from contextlib import nullcontext

    from sfm_match.runtime.trt import TrtRuntime

    fake_gpu.capture_seconds = 0.05
    runtime = TrtRuntime(tmp_path)
    runtime._exclusive = nullcontext()  # type: ignore[assignment]  # the lock taken away on purpose
    found = mixed_work(runtime, 60)
    assert fake_gpu.broken > 0
    fake_gpu.capture_seconds = 0.0
    for ours, theirs in zip(found, mixed_work(TrtRuntime(tmp_path), 60), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_capture_that_failed_is_tried_again(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    session = runtime.load(nano())

    def run(times: int) -> None:
        for _ in range(times):
            session.run({"image": runtime.put("image", image(1, 3, 64, 64))})

    fake_gpu.capture_fails = True
    run(3)  # plain; plain and two tries
    fake_gpu.capture_fails = False
    run(2)  # the third try, and its replay
    assert fake_gpu.launches == 1
