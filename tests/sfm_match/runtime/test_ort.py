from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfm_match.features import device_graphs as parts
from sfm_match.models import find_model
from sfm_match.runtime import EngineError, OutOfMemory, Part, create_runtime
from sfm_match.runtime.devices import Gpu
from sfm_match.runtime.ort import OrtRuntime, OrtSession, cuda_options, tensorrt_options
from sfm_match.runtime.planning import Range

RANGES = [Range((1, 64, 96), (8, 64, 96), (8, 64, 96)), Range((1, 48, 64), (8, 128, 64), (8, 128, 80))]


def test_values_stay_bound_and_equal_arrays(tmp_path: Path) -> None:
    model, image = find_model("dedode-nano"), np.random.default_rng(0).normal(size=(2, 3, 64, 128)).astype(np.float32)
    plain = OrtRuntime("cpu", tmp_path)
    bound = OrtRuntime("cpu", tmp_path, on_device=True)
    found = []
    for runtime in (plain, bound):
        detector = runtime.load(parts.detector(model, RANGES))
        value = detector.run({"image": runtime.put("image", image)})["logits"]
        assert isinstance(value, np.ndarray) == (runtime is plain)
        found.append(runtime.get(value))
    np.testing.assert_array_equal(found[0], found[1])
    assert plain.workers.count == 1
    assert "CPUExecutionProvider" in plain.provider


def test_a_provider_that_falls_back_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime itself goes on, on the CPU."""
    runtime = OrtRuntime("cuda", tmp_path)
    with pytest.raises(
        EngineError, match=r"detector.onnx: asked for CUDAExecutionProvider, ONNX Runtime fell back to CPU"
    ):
        runtime.load(parts.detector(find_model("dedode-nano"), RANGES))
    capfd.readouterr()


def test_errors_are_ours(tmp_path: Path) -> None:
    session = OrtSession(find_model("dedode-nano").detector)
    with pytest.raises(EngineError, match="ONNX Runtime"):
        session.run({"image": np.zeros((1, 3, 64, 96), np.float64)})
    (tmp_path / "bad.onnx").write_text("no")
    with pytest.raises(EngineError, match=r"bad.onnx: ONNX Runtime cannot load it"):
        OrtSession(tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "BFCArena: Failed to allocate memory for requested buffer of size 9",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "[TRT] Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)",
    ],
)
def test_memory_that_is_short_is_known_in_every_library_s_words(text: str) -> None:
    session = OrtSession(find_model("dedode-nano").detector)

    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError(text)

    session.inner = Full()
    with pytest.raises(OutOfMemory):
        session.run({})


def test_provider_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = parts.detector(find_model("dedode-nano", half=True), RANGES)
    assert cuda_options(part)["use_tf32"] == "0"
    assert cuda_options(part)["arena_extend_strategy"] == "kSameAsRequested"
    assert cuda_options(parts.match_block(2, 8, 66, 1))["use_tf32"] == "1"  # products of halves are exact in it
    options = tensorrt_options(part, tmp_path / "engines")
    assert "trt_fp16_enable" not in options  # networks would not be strongly typed, and coordinates half
    assert options["trt_profile_min_shapes"] == "image:1x3x48x64"
    assert options["trt_profile_opt_shapes"] == "image:8x3x64x96"
    assert options["trt_profile_max_shapes"] == "image:8x3x128x96"
    # ONNX Runtime names engines without regard to weights: those of other weights must not be taken
    other = tensorrt_options(replace(part, path=find_model("dedode-nano").detector), tmp_path / "engines")
    assert options["trt_engine_cache_path"] != other["trt_engine_cache_path"]
    assert options["trt_timing_cache_path"] == other["trt_timing_cache_path"]
    # nor those of another GPU of the same compute capability
    folders = set()
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        monkeypatch.setattr("sfm_match.runtime.ort.gpus", lambda name=name: (Gpu(name, (9, 0), 80 << 30),))
        folders.add(tensorrt_options(part, tmp_path / "engines")["trt_engine_cache_path"])
    assert len(folders) == 2
    fixed = Part(part.path, part.module, part.outputs)
    assert "trt_profile_min_shapes" not in tensorrt_options(fixed, tmp_path)


def test_devices_by_name(tmp_path: Path) -> None:
    assert "CPU" in create_runtime("cpu", tmp_path).provider
    assert create_runtime("torch", tmp_path).provider.startswith("torch ")
