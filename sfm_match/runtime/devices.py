"""What this machine has: drivers, GPUs, engines; and the choice among them.

Nothing here trusts lists: ONNX Runtime names CUDA on any machine, and TensorRT crashes the process without a driver.
"""

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sfm_match.errors import UsageError

ORDER = ("tensorrt", "cuda", "torch")  # of `auto`: the fastest that is really there
CUDA_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9", "libcufft.so.12")
NO_GPU = "no NVIDIA GPU with a driver"
LEAST_CUDA, LEAST_CAPABILITY = 13, (7, 5)
_LEAST = {"tensorrt": (10, 13), "cuda.bindings": (13, 0)}
_NAME_LENGTH = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU, as its driver tells."""

    name: str
    compute_capability: tuple[int, int]
    memory: int  # bytes


@dataclass(frozen=True)
class Choice:
    """A device, and why this one."""

    device: str  # a name of `config.DEVICES`, not `auto`
    reason: str  # empty where it was asked for

    @property
    def note(self) -> str:
        """The reason in brackets, to follow what was chosen."""
        return f" ({self.reason})" if self.reason else ""


def _driver() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


@cache
def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that a driver answers for."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for place in range(count.value):
        device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
        name, major, minor = ctypes.create_string_buffer(_NAME_LENGTH), ctypes.c_int(0), ctypes.c_int(0)
        driver.cuDeviceGet(ctypes.byref(device), place)
        driver.cuDeviceGetName(name, _NAME_LENGTH, device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        found.append(Gpu(name.value.decode(errors="replace"), (major.value, minor.value), memory.value))
    return tuple(found)


def driver_present() -> bool:
    """Whether a CUDA driver with a GPU answers."""
    return bool(gpus())


def cuda_of_driver() -> str | None:
    """The CUDA version that the driver serves, `13.0`."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def version_of(package: str) -> str | None:
    """Of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_libraries() -> list[str]:
    """The CUDA libraries of ONNX Runtime's CUDA provider that the loader does not find."""

    def absent(name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return True
        return False

    return [name for name in CUDA_LIBRARIES if absent(name)]


def _gpu_trouble() -> str | None:
    """Why the first GPU serves neither ONNX Runtime nor TensorRT, which are built for CUDA 13 here."""
    if not gpus():
        return NO_GPU
    served, (major, minor) = cuda_of_driver(), gpus()[0].compute_capability
    if served is not None and int(served.split(".")[0]) < LEAST_CUDA:
        return f"the driver serves CUDA {served}, CUDA {LEAST_CUDA} is needed: update the driver"
    if (major, minor) < LEAST_CAPABILITY:
        return f"{gpus()[0].name} has compute capability {major}.{minor}, 7.5 is needed (torch may serve it)"
    return None


def _why_no_tensorrt() -> str | None:
    if (reason := _gpu_trouble()) is not None:
        return reason
    for package in ("tensorrt", "cuda.bindings"):
        if importlib.util.find_spec(package.split(".")[0]) is None:
            return f"{package} is not installed; pip install 'sfm-match[tensorrt]'"
        try:
            module = importlib.import_module(package)
        except (ImportError, OSError, RuntimeError) as error:  # a library that it needs
            return f"{package} does not load ({error}); pip install 'sfm-match[tensorrt]'"
        version = tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])
        if version < _LEAST[package]:
            return f"{package} {module.__version__} is too old; pip install -U 'sfm-match[tensorrt]'"
    return None


def _why_no_provider(provider: str) -> str | None:
    if (reason := _gpu_trouble()) is not None:
        return reason
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return (
            f"this onnxruntime has no {provider}; pip uninstall onnxruntime onnxruntime-gpu, then "
            "pip install onnxruntime-gpu: the two are the same files and must not both be there"
        )
    from sfm_match.runtime.ort import provider_trouble

    trouble = provider_trouble(provider)
    if trouble is None:
        return None
    missing = missing_libraries()
    libraries = f"libraries not found: {', '.join(missing)}" if missing else trouble
    extra = "cuda" if provider.startswith("CUDA") else "ort-tensorrt"
    return f"{libraries}; pip install 'sfm-match[{extra}]', or a CUDA 13 build of torch"


def _why_no_torch() -> str | None:
    absent = [package for package in ("torch", "safetensors") if importlib.util.find_spec(package) is None]
    return f"{' and '.join(absent)} not installed; pip install 'sfm-match[torch]'" if absent else None


_REASONS: dict[str, Callable[[], str | None]] = {
    "cpu": lambda: None,
    "tensorrt": _why_no_tensorrt,
    "cuda": lambda: _why_no_provider("CUDAExecutionProvider"),
    "ort-tensorrt": lambda: _why_no_provider("TensorrtExecutionProvider"),
    "torch": _why_no_torch,
}


@cache
def why_not(device: str) -> str | None:
    """Why a device cannot be had here and how to get it, or None where it can."""
    return _REASONS[device]()


def _torch_has_gpu() -> bool:
    """Where there can be one at all: importing torch takes seconds."""
    possible = bool(gpus()) or sys.platform == "darwin" or Path("/dev/kfd").exists()  # the last is AMD's
    if not possible or importlib.util.find_spec("torch") is None:
        return False
    from sfm_match.runtime.torch import best_device

    return best_device() != "cpu"


def choose(device: str) -> Choice:
    """`auto` resolved: TensorRT, ONNX Runtime's CUDA, torch where it has a GPU (any make), the CPU.

    Raises:
        UsageError: a device that was asked for by name cannot be had; the message says what is missing.
    """
    if device != "auto":
        reason = why_not(device)
        if reason is not None:
            raise UsageError(f"--device {device}: {reason}; accepted here: {', '.join(present())}")
        return Choice(device, "")
    if not gpus() and not _torch_has_gpu():
        return Choice("cpu", NO_GPU)
    passed_over: list[str] = []
    for candidate in ORDER:
        reason = why_not(candidate)
        if reason is None and (candidate != "torch" or _torch_has_gpu()):
            return Choice(candidate, "; ".join(passed_over) or "the fastest that is here")
        passed_over.append(f"{candidate}: {reason or 'no GPU that it serves'}")
    return Choice("cpu", "; ".join(passed_over))


def present() -> list[str]:
    """The devices that can be had here."""
    return ["auto", *(device for device in _REASONS if why_not(device) is None)]
