"""The native TensorRT backend: names against the real bindings, logic on a fake GPU, networks against the builder."""

import ast
import gc
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_gpu import FakeCuda

import sfm_match
from exports.graph_constants import CAPACITIES
from sfm_match.commands.engines import build_engines
from sfm_match.errors import UsageError
from sfm_match.features import device_graphs as parts
from sfm_match.features.dedode import DeDoDeExtractor, selection
from sfm_match.images.coordinates import plan_geometry
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.on_device import MORE, BlockMatcher
from sfm_match.models import BUILT_IN, Weights, find_model
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import EngineError, OutOfMemory, Part
from sfm_match.runtime.planning import MOST_PAIRS, Range, ranges
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.store.features import Features
from sfm_match.store.matches import read_block

if TYPE_CHECKING:
    from sfm_match.runtime.trt import TrtRuntime

ROOT = Path(__file__).parents[3]
NAMES = json.loads((ROOT / "tests" / "data" / "tensorrt_names.json").read_text())
# variables of runtime/trt.py -> the class of TensorRT whose members they use
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "learned": "ITimingCache",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
OTHERS = {"create_execution_context": "ICudaEngine", "deserialize_cuda_engine": "Runtime"}
RANGE = [Range((1, 64, 64), (2, 64, 96), (4, 128, 128))]


@pytest.mark.parametrize("version", NAMES)
def test_every_name_is_one_of_tensorrt_s(version: str) -> None:
    """The members of the real bindings of both major versions, against the source of the backend."""
    real = NAMES[version]
    tree = ast.parse((ROOT / "sfm_match" / "runtime" / "trt.py").read_text())
    checked = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if isinstance(owner, ast.Name) and owner.id == "trt" and node.attr != "__version__":
            assert node.attr in real, node.attr
            checked.add(node.attr)
        elif isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "trt":
            if not node.attr.startswith("__"):
                assert node.attr in real[owner.attr], (owner.attr, node.attr)
                checked.add((owner.attr, node.attr))
        elif isinstance(owner, ast.Name) and owner.id in CLASSES:
            assert node.attr in real[CLASSES[owner.id]], (owner.id, node.attr)
            checked.add((owner.id, node.attr))
        elif node.attr in OTHERS:
            assert node.attr in real[OTHERS[node.attr]]
            checked.add(node.attr)
    assert {"Builder", "OnnxParser", "Runtime", ("DataType", "HALF"), ("context", "execute_async_v3")} <= checked
    assert {owner for owner, *_ in (c for c in checked if isinstance(c, tuple))} >= CLASSES.keys()


def nano(part: str = "detector") -> Part:
    model = find_model("dedode-nano")
    return parts.detector(model, RANGE) if part == "detector" else parts.descriptor(model, RANGE, (1, 32, 64))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.usefixtures("fake_gpu")
def test_a_session_runs_and_equals_onnx_runtime(tmp_path: Path) -> None:
    from sfm_match.runtime.ort import OrtSession
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    assert runtime.provider == "TensorRT 11.4.0.106, Fake GPU"
    session = runtime.load(nano())
    reference = OrtSession(find_model("dedode-nano").detector)
    for shape in ((1, 3, 64, 64), (2, 3, 64, 96), (1, 3, 64, 64), (4, 3, 128, 128), (2, 3, 64, 96), (2, 3, 64, 96)):
        given = image(*shape)
        found = runtime.get(session.run({"image": runtime.put("image", given)})["logits"])
        np.testing.assert_allclose(found, reference.run({"image": given})["logits"], atol=1e-5)


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


@pytest.mark.usefixtures("fake_gpu")
def test_engines_are_built_with_what_the_part_asks_for(tmp_path: Path) -> None:
    import tensorrt as trt

    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    runtime.load(nano()).run({"image": runtime.put("image", image(1, 3, 64, 64))})
    (config,) = trt.configs
    assert config.profile.shapes == {"image": ((1, 3, 64, 64), (2, 3, 64, 96), (4, 3, 128, 128))}
    assert config.cleared == [trt.BuilderFlag.TF32]
    assert config.pools == {trt.MemoryPoolType.WORKSPACE: 30 << 30}
    again = TrtRuntime(tmp_path)
    again.load(nano()).run({"image": again.put("image", image(1, 3, 64, 64))})
    assert len(trt.configs) == 1  # from the disk
    matcher = again.load(parts.match_block(2, 8, 6, 1))
    block, pairs = np.zeros((2, 8, 6), np.float16), np.zeros((1, 2), np.int64)
    feeds = {"descriptors": block, "pairs": pairs, "inverse_temperature": np.ones(1, np.float32)}
    matcher.run({name: again.put(name, array) for name, array in feeds.items()})
    assert trt.configs[1].cleared == []  # products of halves are exact in TF32


def test_errors(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    from sfm_match.runtime.trt import TrtRuntime, numpy_type

    runtime = TrtRuntime(tmp_path)
    with pytest.raises(EngineError, match=r"detector.onnx: no TensorRT profile for \{'image': \(5, 3, 64, 64\)\}"):
        runtime.load(nano()).run({"image": runtime.put("image", image(5, 3, 64, 64))})
    (tmp_path / "bad.onnx").write_bytes(b"no")
    bad = Part(tmp_path / "bad.onnx", lambda: None, ("logits",), profiles=nano().profiles)
    with pytest.raises(EngineError, match=r"TensorRT 11\.4\.0\.106 cannot parse it: In node 0: INVALID_GRAPH"):
        runtime.load(bad)
    wrong = Part(nano().path, lambda: None, ("logits",), profiles=[{"image": ((2, 3, 64, 64), *((1, 3, 64, 64),) * 2)}])
    with pytest.raises(EngineError, match=r"TensorRT 11\.4\.0\.106 refuses the shapes"):
        runtime.load(wrong)
    with pytest.raises(EngineError, match="numpy does not have"):
        numpy_type("BF16")
    fake_gpu.limit = 1000
    with pytest.raises(OutOfMemory, match="cudaErrorMemoryAllocation"):
        TrtRuntime(tmp_path).put("image", image(1, 3, 64, 64))


def test_without_a_driver_tensorrt_is_not_touched(
    fake_gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfm_match.runtime import devices
    from sfm_match.runtime.trt import TrtRuntime

    assert fake_gpu.streams == 0
    monkeypatch.setattr(devices, "gpus", lambda: ())
    with pytest.raises(EngineError, match="no NVIDIA GPU with a driver"):
        TrtRuntime(tmp_path)


def test_shapes_in_turn_each_have_their_own_context_and_graph(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    """The fake refuses to change a context whose work is captured."""
    from sfm_match.runtime.ort import OrtSession
    from sfm_match.runtime.trt import TrtRuntime

    runtime, reference = TrtRuntime(tmp_path), OrtSession(find_model("dedode-nano").detector)
    session = runtime.load(nano())
    for turn in range(5):
        for shape in ((4, 3, 128, 128), (1, 3, 64, 64), (3, 3, 64, 96)):
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
        for width in (64, 80, 96):
            session.run({"image": runtime.put("image", image(1, 3, 64, width))})
    assert len(runtime.worker().prepared) == 2
    assert fake_gpu.launches == 0


def test_a_runtime_that_goes_leaves_nothing(fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path) -> None:
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    extractor = DeDoDeExtractor(find_model("dedode-nano"), options, buckets, runtime)
    for _ in range(3):  # threads, and what they hold, stay from one call to the next
        assert len(list(extractor.each([batch] * 4, Clock()))) == 4
    assert fake_gpu.streams == 2
    assert fake_gpu.memory
    del extractor, runtime
    gc.collect()
    assert fake_gpu.destroyed == 2
    assert not fake_gpu.memory


def test_memory_that_is_short_for_a_large_batch_serves_a_smaller_one(
    fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path
) -> None:
    """The working memory of an engine depends on the batch, not on the largest that it could take."""
    from sfm_match.runtime.trt import TrtRuntime

    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    expected = DeDoDeExtractor(find_model("dedode-nano"), options, buckets).features(batch, Clock())
    runtime = TrtRuntime(tmp_path)
    extractor = DeDoDeExtractor(find_model("dedode-nano"), options, buckets, runtime)
    fake_gpu.limit = 2 * 3 * 320 * 256 * 4  # two images in float32
    found = extractor.features(batch, Clock())
    assert list(found) == list(expected)
    assert all(isinstance(one, Features) for one in found.values())


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
    shapes = [(1, 64, 64), (2, 64, 96), (3, 96, 64), (4, 128, 128)]

    def work(number: int) -> np.ndarray:
        batch, height, width = shapes[number * 7 % len(shapes)]
        if number % 3:
            given = {"image": image(batch, 3, height, width) + number}
            return runtime.get(sessions[0].run({"image": runtime.put("image", given["image"])})["logits"])
        pixels = np.full((batch, height, width, 3), number % 255, np.uint8)
        return runtime.get(sessions[1].run({"pixels": runtime.put("pixels", pixels)})["image"])

    return [found for _, found in runtime.workers.each(range(rounds), work)]


def test_two_lanes_spoil_no_capture(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    """Memory grows, contexts are made and kernels loaded in one thread while the other captures."""
    from sfm_match.job.concurrency import WorkerThreads
    from sfm_match.runtime.trt import TrtRuntime

    fake_gpu.capture_seconds = 0.01
    runtime, alone = TrtRuntime(tmp_path), TrtRuntime(tmp_path)
    alone.workers = WorkerThreads(1)
    for ours, theirs in zip(mixed_work(runtime, 200), mixed_work(alone, 200), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fake_gpu.broken == 0
    assert fake_gpu.launches > 200


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

    fake_gpu.capture_seconds = 0.01
    runtime = TrtRuntime(tmp_path)
    runtime._exclusive = nullcontext()
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


@pytest.mark.usefixtures("fake_gpu")
def test_every_failure_has_its_own_reasons(tmp_path: Path) -> None:
    """TensorRT tells the first logger of a process, whichever it is given later."""
    from sfm_match.runtime.trt import LOG, TrtRuntime

    (tmp_path / "bad.onnx").write_bytes(b"no")
    bad = Part(tmp_path / "bad.onnx", lambda: None, ("logits",), profiles=nano().profiles)
    runtime = TrtRuntime(tmp_path)
    for _ in range(100):
        with pytest.raises(EngineError, match=r"cannot parse it: In node 0: INVALID_GRAPH: InvalidProtobuf$"):
            runtime.load(bad)
    assert len(LOG._latest) < 100  # they are not kept for ever
    runtime.load(nano())
    profile = {"image": ((2, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64))}
    with pytest.raises(EngineError, match=r"refuses the shapes .*: no reason given"):  # those of others are not its own
        runtime.load(Part(nano().path, lambda: None, ("logits",), profiles=[profile]))


def test_an_engine_that_finds_no_memory_is_not_damaged(fake_gpu: FakeCuda, tmp_path: Path) -> None:
    import tensorrt as trt

    from sfm_match.runtime.trt import TrtRuntime

    TrtRuntime(tmp_path).load(nano())
    fake_gpu.limit = 1000
    with pytest.raises(OutOfMemory, match="out of memory"):
        TrtRuntime(tmp_path).load(nano())
    assert len(trt.configs) == 1  # it was not built again


def test_extraction_and_matching_equal_the_cpu_s(fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path) -> None:
    """The whole of a batch through the backend: its sessions, buffers, graphs and engines."""
    from sfm_match.runtime.trt import TrtRuntime

    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    model, runtime = find_model("dedode-nano"), TrtRuntime(tmp_path)
    host, device = DeDoDeExtractor(model, options, buckets), DeDoDeExtractor(model, options, buckets, runtime)
    expected = host.features(batch, Clock())
    for _ in range(4):  # plain while memory grows, plain, captured, replayed
        found = device.features(batch, Clock())
    assert fake_gpu.launches >= 4
    for name, ours in found.items():
        theirs = expected[name]
        assert isinstance(ours, Features)
        assert isinstance(theirs, Features)
        np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.02)
        np.testing.assert_allclose(ours.descriptors, theirs.descriptors, atol=5e-3)
    views = [found[item.name].descriptors for item in batch.items]  # type: ignore[union-attr]
    pairs = np.array(list(combinations(range(3), 2)), np.int32)
    matched = BlockMatcher(runtime, 0.1, 20.0, images=4, keypoints=300, dimension=64).match_images(views, pairs)
    for (i, j), ours in zip(pairs, matched, strict=True):
        theirs = match_descriptors(views[i].astype(np.float32), views[j].astype(np.float32), 0.1)
        np.testing.assert_array_equal(ours.indices, theirs.indices)


def test_engines_built_ahead_are_those_of_the_job(
    fake_gpu: FakeCuda, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt as trt

    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path / "weights"))
    options = ExtractOptions(size=320, max_keypoints=300)
    (served,) = build_engines(rendered, [], options)
    assert served.largest == (16, 256, 320)
    built = len(trt.configs)
    assert built == 5
    work = tmp_path / "work"
    sfm_match.extract(rendered, work, size=320, max_keypoints=300)
    assert len(trt.configs) == built
    sfm_match.pairs(work)
    sfm_match.match(work)
    assert len(trt.configs) == built + 2  # matching's two, which depend on no image's shape
    for shard in (*work.glob("features/*"), *work.glob("matches/*")):
        shard.unlink()
    sfm_match.extract(rendered, work, size=320, max_keypoints=300)
    sfm_match.match(work)
    assert len(trt.configs) == built + 2
    assert fake_gpu.streams > 0
    with pytest.raises(UsageError, match="--shapes 100x64: accepted are multiples of 64 for dedode-nano"):
        build_engines(None, [(100, 64)], options)
    with pytest.raises(UsageError, match="accepted are --images DIR, or --shapes"):
        build_engines(None, [], options)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_whole_job_on_the_gpu(
    precision: str, fake_gpu: FakeCuda, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes TensorRT where it is; matches are those of the CPU."""
    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path / "weights"))
    options = {"size": 320, "max_keypoints": 300}
    sfm_match.run(rendered, tmp_path / "cpu", device="cpu", mapper="none", verify=False, **options)
    extracted, _, matched, _ = sfm_match.run(
        rendered, tmp_path / "gpu", precision=precision, batch=1, mapper="none", verify=False, **options
    )
    assert extracted.detail.startswith("TensorRT 11.4.0.106, Fake GPU" + (", fp16" if precision == "auto" else ""))
    assert "TensorRT 11.4.0.106" in matched.detail
    assert fake_gpu.launches > 0
    counts = [
        sum(len(m.indices) for path in (tmp_path / where / "matches").glob("*.h5") for m in read_block(path).matches)
        for where in ("cpu", "gpu")
    ]
    assert abs(counts[0] - counts[1]) <= (0.05 if precision == "auto" else 0.005) * counts[0]
    record = json.loads((tmp_path / "gpu" / "sfm-match.json").read_text())
    assert record["extract"]["precision"] == ("fp16" if precision == "auto" else "fp32")
    with pytest.raises(UsageError, match="precision was"):  # precisions never mix
        other = "fp32" if precision == "auto" else "fp16"
        sfm_match.extract(rendered, tmp_path / "gpu", precision=other, **options)


CHECK = Path(os.environ.get("SFM_MATCH_TRT_CHECK", ROOT.parent / "shared" / "gpu" / "trt_check.sh"))


@pytest.mark.slow
@pytest.mark.skipif(not CHECK.is_file(), reason="no builder check at SFM_MATCH_TRT_CHECK")
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", [*BUILT_IN, "dedode-l-b", "dedode-l-g"])
def test_tensorrt_builds_every_part_with_the_profiles_of_a_job(name: str, half: bool, tmp_path: Path) -> None:
    """Against TensorRT's own parser and builder, which need no GPU to say no."""
    weights = Weights(folder=tmp_path, random=True) if name.startswith("dedode-l") else None
    model = find_model(name, weights, half=half)
    divisor, batch = model.divisor, 8
    wide = plan_geometry((4000, 3000), 1, 1024, divisor).bucket
    small = [plan_geometry(size, 1, 1024, divisor).bucket for size in ((640, 480), (500, 700))]
    served = ranges({wide: 100, small[0]: 3, small[1]: 7}, batch)
    columns = model.spec.dimension + MORE
    every = [parts.match_block(2 * BLOCK, 4096, columns, MOST_PAIRS), parts.join_groups(BLOCK, 4096, columns)]
    for subpixel in (True, False):
        how = selection(model, ExtractOptions(subpixel=subpixel))
        for capacity in CAPACITIES:
            every += parts.on_device(model, how, capacity, served).each()
    checked: set[tuple[str, str]] = set()
    for part in every:
        for profile in part.profiles:
            shapes = json.dumps(profile)
            if (part.path.name, shapes) in checked:
                continue
            checked.add((part.path.name, shapes))
            command = ["bash", str(CHECK), str(part.path), shapes]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (part.path.name, profile, done.stdout, done.stderr)
    # matching's two; for both ranges normalise, detector, selections, descriptors; what is stored knows no shape
    assert len(checked) == 2 + 2 * (1 + 1 + 6 + 3) + 3


def test_importing_the_backend_needs_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "sfm_match.runtime.trt", raising=False)
    with pytest.raises(ImportError):
        __import__("sfm_match.runtime.trt")
