"""The native TensorRT backend: names against the real bindings, sessions, engines and their failures on a fake GPU."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeCuda
from trt_parts import image, nano

from sfm_match.features import device_graphs as parts
from sfm_match.models import find_model
from sfm_match.runtime import EngineError, OutOfMemory, Part

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


@pytest.mark.parametrize("version", NAMES)
def test_every_name_is_one_of_tensorrt_s(version: str) -> None:
    """The members of the real bindings of both major versions, against the source of the backend."""
    real = NAMES[version]
    tree = ast.parse((ROOT / "sfm_match" / "runtime" / "trt.py").read_text())
    checked: set[str | tuple[str, str]] = set()
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


@pytest.mark.usefixtures("fake_gpu")
def test_a_session_runs_and_equals_onnx_runtime(tmp_path: Path) -> None:
    from sfm_match.runtime.ort import OrtSession
    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    assert runtime.provider == "TensorRT 11.4.0.106, Fake GPU"
    session = runtime.load(nano())
    reference = OrtSession(find_model("dedode-nano").detector)
    for shape in ((1, 3, 64, 64), (2, 3, 64, 128), (1, 3, 64, 64), (4, 3, 128, 128), (2, 3, 64, 128), (2, 3, 64, 128)):
        given = image(*shape)
        found = runtime.get(session.run({"image": runtime.put("image", given)})["logits"])
        np.testing.assert_allclose(found, reference.run({"image": given})["logits"], atol=1e-5)


@pytest.mark.usefixtures("fake_gpu")
def test_engines_are_built_with_what_the_part_asks_for(tmp_path: Path) -> None:
    import tensorrt as trt

    from sfm_match.runtime.trt import TrtRuntime

    runtime = TrtRuntime(tmp_path)
    runtime.load(nano()).run({"image": runtime.put("image", image(1, 3, 64, 64))})
    (config,) = trt.configs
    assert config.profile.shapes == {"image": ((1, 3, 64, 64), (2, 3, 64, 128), (4, 3, 128, 128))}
    assert config.cleared == [trt.BuilderFlag.TF32]
    assert config.pools == {trt.MemoryPoolType.WORKSPACE: 30 << 30}
    again = TrtRuntime(tmp_path)
    again.load(nano()).run({"image": again.put("image", image(1, 3, 64, 64))})
    assert len(trt.configs) == 1  # from the disk
    matcher = again.load(parts.match_block(2, 8, 6, 1))
    block, pairs = np.zeros((2, 8, 6), np.float16), np.zeros((1, 2), np.int64)
    feeds: dict[str, np.ndarray] = {"descriptors": block, "pairs": pairs, "inverse_temperature": np.ones(1, np.float32)}
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


def test_importing_the_backend_needs_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "sfm_match.runtime.trt", raising=False)
    with pytest.raises(ImportError):
        __import__("sfm_match.runtime.trt")
