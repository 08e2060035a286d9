import importlib
import importlib.util
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec

import pytest

from sfm_match.errors import UsageError
from sfm_match.runtime import devices
from sfm_match.runtime.devices import Gpu, choose, devices_of
from sfm_match.runtime.gpus import cuda_of_driver, gpus

H200 = Gpu("NVIDIA H200", (9, 0), 150 << 30)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.why_not.cache_clear()
    monkeypatch.setattr(devices, "_torch_has_gpu", lambda: False)


def machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool = True, absent: dict[str, str] | None = None) -> None:
    """A machine with a GPU, that has every engine but some."""
    monkeypatch.setattr(devices, "gpus", lambda: (H200,) if gpu else ())
    reasons = {name: (lambda why: lambda _: why)((absent or {}).get(name)) for name in devices._REASONS}
    monkeypatch.setattr(devices, "_REASONS", reasons)


def test_the_fastest_that_is_really_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert choose("auto") == devices.Choice("tensorrt", "the fastest that is here")
    devices.why_not.cache_clear()
    machine(monkeypatch, absent={"tensorrt": "TensorRT is not installed"})
    assert choose("auto") == devices.Choice("cuda", "tensorrt: TensorRT is not installed")
    devices.why_not.cache_clear()
    machine(monkeypatch, absent={"tensorrt": "no T", "cuda": "no C"})
    assert choose("auto").device == "cpu"  # a torch without a GPU is not faster
    assert "tensorrt: no T; cuda: no C; torch: no GPU that it serves" in choose("auto").reason
    monkeypatch.setattr(devices, "_torch_has_gpu", lambda: True)
    assert choose("auto").device == "torch"


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=False, absent={"tensorrt": "no", "cuda": "no"})
    assert choose("auto") == devices.Choice("cpu", "no NVIDIA GPU with a driver")
    monkeypatch.setattr(devices, "_torch_has_gpu", lambda: True)  # an Apple or AMD one
    assert choose("auto").device == "torch"


def test_what_was_asked_for_is_had_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, absent={"tensorrt": "TensorRT is not installed; pip install 'sfm-match[tensorrt]'"})
    assert choose("cuda") == devices.Choice("cuda", "")
    with pytest.raises(UsageError, match=r"--device tensorrt: TensorRT is not installed; pip install .* accepted here"):
        choose("tensorrt")


def test_a_gpu_by_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gpu("Tesla P100", (6, 0), 16 << 30)
    monkeypatch.setattr(devices, "gpus", lambda: (H200, H200, old))
    monkeypatch.setattr(devices, "cuda_of_driver", lambda: "13.0")
    monkeypatch.setattr("sfm_match.runtime.ort.provider_trouble", lambda *_: None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert choose("cuda:1") == devices.Choice("cuda", "", 1)
    assert (choose("cuda:1").name, choose("cuda:0").name) == ("cuda:1", "cuda")
    assert choose("auto:1").name == "cuda:1"
    with pytest.raises(UsageError, match=r"--device cuda:2: Tesla P100 has compute capability 6.0, 7.5 is needed"):
        choose("cuda:2")
    with pytest.raises(UsageError, match=r"--device cuda:3: GPUs are counted from 0, and there are 3"):
        choose("cuda:3")
    with pytest.raises(UsageError, match=r"--device auto:3: tensorrt: GPUs are counted from 0, .*; cuda: GPUs are"):
        choose("auto:3")
    with pytest.raises(UsageError, match=r"--device torch:1: GPUs are counted from 0, and there are 0"):
        choose("torch:1")
    with pytest.raises(UsageError, match="--device cpu:1: the CPU has no index"):
        choose("cpu:1")


def test_the_devices_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(devices, "gpus", lambda: (H200, H200))
    assert devices_of("auto", None) == ["auto"]
    assert devices_of("auto", "all") == ["tensorrt", "tensorrt:1"]
    assert devices_of("cuda", "all") == ["cuda", "cuda:1"]
    assert devices_of("auto", "cuda:1,cpu,cuda:1") == ["cuda:1", "cpu", "cuda:1"]
    with pytest.raises(UsageError, match="--devices all: no NVIDIA GPU with a driver"):
        devices_of("cpu", "all")
    with pytest.raises(UsageError, match=r"--device cud:1: accepted values are .*did you mean 'cuda'"):
        devices_of("auto", "cuda:0,cud:1")


@pytest.mark.skipif(bool(gpus()), reason="a GPU is here")
def test_this_machine() -> None:
    """Lists of ONNX Runtime name CUDA on any machine; ours do not."""
    for device in ("cuda", "tensorrt", "ort-tensorrt"):
        with pytest.raises(
            UsageError, match=f"--device {device}: no NVIDIA GPU with a driver; accepted here: auto, cpu"
        ):
            choose(device)
    assert cuda_of_driver() is None


def test_a_tensorrt_that_does_not_load_or_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (H200,))
    old = types.ModuleType("tensorrt")
    old.__version__ = "10.9.0.34"  # type: ignore[attr-defined]
    old.__spec__ = ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    assert devices.why_not("tensorrt") == "tensorrt 10.9.0.34 is too old; pip install -U 'sfm-match[tensorrt]'"
    devices.why_not.cache_clear()
    real = importlib.import_module

    def broken(name: str) -> types.ModuleType:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.11: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert "tensorrt does not load (libnvinfer.so.11" in str(devices.why_not("tensorrt"))


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (H200,))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt" else real(name))
    assert "pip install 'sfm-match[tensorrt]'" in str(devices.why_not("tensorrt"))


def test_the_cuda_provider_is_tried_and_its_fall_back_is_silent() -> None:
    if gpus():
        pytest.skip("a GPU is here")
    code = (
        "from sfm_match.runtime import devices\n"
        "devices.gpus = lambda: (devices.Gpu('x', (9, 0), 1),)\n"
        "print(devices.why_not('cuda'))\nprint(devices.why_not('ort-tensorrt'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    # the libraries are here where torch is a CUDA build
    assert first.startswith(("libraries not found: ", "ONNX Runtime fell back to the CPU"))
    assert "libcublasLt.so.13" in first or first.startswith("ONNX Runtime")
    assert "pip install 'sfm-match[cuda]'" in first
    assert "pip install 'sfm-match[ort-tensorrt]'" in second
    assert done.stderr == ""
