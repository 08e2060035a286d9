"""What this machine has: drivers, GPUs, engines; and the choice among them.

A device is an engine and the GPU that it runs on: `cuda` is ONNX Runtime's CUDA provider on the first GPU, `cuda:1` on
the second, as the driver counts them (under CUDA_VISIBLE_DEVICES).

Nothing here trusts lists: ONNX Runtime names CUDA on any machine, and TensorRT crashes the process without a driver.
"""

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from sfm_match.errors import UsageError
from sfm_match.options.devices import AUTO, EVERY_GPU, split_device
from sfm_match.runtime.gpus import Gpu as Gpu
from sfm_match.runtime.gpus import cuda_of_driver, gpus

ORDER = ("tensorrt", "cuda", "torch")  # of `auto`: the fastest that is really there
CUDA_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9", "libcufft.so.12")
NO_GPU = "no NVIDIA GPU with a driver"
LEAST_CUDA, LEAST_CAPABILITY = 13, (7, 5)
_LEAST = {"tensorrt": (10, 13), "cuda.bindings": (13, 0)}


@dataclass(frozen=True)
class Choice:
    """A device, and why this one."""

    device: str  # of `options.devices.ENGINES`
    reason: str  # empty where it was asked for
    index: int = 0  # of the GPU

    @property
    def name(self) -> str:
        """As `--device` takes it: `cuda:1`, the index left out where it is 0."""
        return f"{self.device}:{self.index}" if self.index else self.device

    @property
    def note(self) -> str:
        """The reason in brackets, to follow what was chosen."""
        return f" ({self.reason})" if self.reason else ""


def driver_present() -> bool:
    """Whether a CUDA driver with a GPU answers."""
    return bool(gpus())


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


def _gpu_trouble(index: int) -> str | None:
    """Why a GPU serves neither ONNX Runtime nor TensorRT, which are built for CUDA 13 here."""
    if not gpus():
        return NO_GPU
    if index >= len(gpus()):
        return _only(len(gpus()))
    served, (major, minor) = cuda_of_driver(), gpus()[index].compute_capability
    if served is not None and int(served.split(".")[0]) < LEAST_CUDA:
        return f"the driver serves CUDA {served}, CUDA {LEAST_CUDA} is needed: update the driver"
    if (major, minor) < LEAST_CAPABILITY:
        return f"{gpus()[index].name} has compute capability {major}.{minor}, 7.5 is needed (torch may serve it)"
    return None


def _only(count: int) -> str:
    return f"GPUs are counted from 0, and there {'is 1' if count == 1 else f'are {count}'}"


def _why_no_tensorrt(index: int) -> str | None:
    if (reason := _gpu_trouble(index)) is not None:
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


def _why_no_provider(provider: str, index: int) -> str | None:
    if (reason := _gpu_trouble(index)) is not None:
        return reason
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return (
            f"this onnxruntime has no {provider}; pip uninstall onnxruntime onnxruntime-gpu, then "
            "pip install onnxruntime-gpu: the two are the same files and must not both be there"
        )
    from sfm_match.runtime.ort import provider_trouble

    trouble = provider_trouble(provider, index)
    if trouble is None:
        return None
    missing = missing_libraries()
    libraries = f"libraries not found: {', '.join(missing)}" if missing else trouble
    extra = "cuda" if provider.startswith("CUDA") else "ort-tensorrt"
    return f"{libraries}; pip install 'sfm-match[{extra}]', or a CUDA 13 build of torch"


def _why_no_torch(index: int) -> str | None:
    absent = [package for package in ("torch", "safetensors") if importlib.util.find_spec(package) is None]
    if absent:
        return f"{' and '.join(absent)} not installed; pip install 'sfm-match[torch]'"
    if index == 0:  # its GPU or its CPU
        return None
    from sfm_match.runtime.torch import gpu_count

    return _only(count) if index >= (count := gpu_count()) else None


_REASONS: dict[str, Callable[[int], str | None]] = {
    "cpu": lambda index: "the CPU has no index" if index else None,
    "tensorrt": _why_no_tensorrt,
    "cuda": partial(_why_no_provider, "CUDAExecutionProvider"),
    "ort-tensorrt": partial(_why_no_provider, "TensorrtExecutionProvider"),
    "torch": _why_no_torch,
}


@cache
def why_not(device: str, index: int = 0) -> str | None:
    """Why an engine is not available here on the GPU of this index and how to get it, or None where it is."""
    return _REASONS[device](index)


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
        UsageError: a device that was asked for by name is not available; the message says what is missing.
    """
    engine, index = split_device(device)
    if engine != AUTO:
        reason = why_not(engine, index)
        if reason is not None:
            raise UsageError(f"--device {device}: {reason}; accepted here: {', '.join(present())}")
        return Choice(engine, "", index)
    if index:
        return _fastest(index)
    if not gpus() and not _torch_has_gpu():
        return Choice("cpu", NO_GPU)
    return _fastest(0)


def _fastest(index: int) -> Choice:
    """The fastest engine for a GPU; for the first, the CPU where none serves it."""
    passed_over: list[str] = []
    for candidate in ORDER:
        reason = why_not(candidate, index)
        if reason is None and (candidate != "torch" or _torch_has_gpu()):
            return Choice(candidate, "; ".join(passed_over) or "the fastest that is here", index)
        passed_over.append(f"{candidate}: {reason or 'no GPU that it serves'}")
    if index:
        raise UsageError(f"--device auto:{index}: {'; '.join(passed_over)}; accepted here: {', '.join(present())}")
    return Choice("cpu", "; ".join(passed_over))


def devices_of(device: str, devices: str | None) -> list[str]:
    """The devices of a job, one worker each.

    Args:
        device: `--device`.
        devices: `--devices`: None, a list such as `cuda:0,cuda:1`, or `all` for every GPU under the engine `device`.

    Returns:
        As `choose` takes them; equal ones may be there twice.

    Raises:
        UsageError: a device of the list is not available, or there is no GPU.
    """
    if devices is None:
        return [device]
    if devices != EVERY_GPU:
        return [choose(name).name for name in devices.split(",")]
    engine = choose(device).device
    count = _count_for(engine)
    if not count:
        raise UsageError(f"--devices {EVERY_GPU}: {NO_GPU}; accepted here: a list of {', '.join(present())}")
    return [choose(f"{engine}:{index}").name for index in range(count)]


def _count_for(engine: str) -> int:
    """GPUs that an engine can have."""
    if engine == "torch" and _torch_has_gpu():
        from sfm_match.runtime.torch import gpu_count

        return gpu_count()
    return 0 if engine == "cpu" else len(gpus())


def present() -> list[str]:
    """The devices that are available here."""
    return [AUTO, *(device for device in _REASONS if why_not(device) is None)]
