"""The NVIDIA GPUs of this machine, from their driver: no CUDA library is needed for it."""

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

_NAME_LENGTH = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU, as its driver tells."""

    name: str
    compute_capability: tuple[int, int]
    memory: int  # bytes


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


def cuda_of_driver() -> str | None:
    """The CUDA version that the driver serves, `13.0`."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
