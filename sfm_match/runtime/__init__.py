"""Engines behind one small protocol, chosen by name or `auto`."""

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sfm_match.errors import NothingDone, UsageError
from sfm_match.store.shard import sha256_of

Arrays = dict[str, NDArray[Any]]
Provider = str | tuple[str, dict[str, Any]]  # ONNX Runtime's name for one, alone or with its options


class Session(Protocol):
    """A network ready to run."""

    @property
    def provider(self) -> str:
        """What really runs it, for the log."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Inputs by name to outputs by name."""


def create_session(path: Path, device: str) -> Session:
    """Loads an ONNX file on a device.

    Raises:
        UsageError: the device is not served yet, or cannot be had.
    """
    check_device(device)
    from sfm_match.runtime.ort import OrtSession

    return OrtSession(path)


def check_device(device: str) -> None:
    """Raises UsageError for a device that is not served."""
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: this version runs networks on the CPU only; accepted are auto, cpu")


def resolve_precision(precision: str, device: str) -> str:
    """`auto` by device. Half precision is slower than single on a CPU, and less exact."""
    check_device(device)
    if precision == "fp16" and device in ("auto", "cpu"):
        raise UsageError("--precision fp16: not on the CPU; accepted there are auto, fp32")
    return "fp32"


def driver_present() -> bool:
    """Whether a CUDA driver with a GPU answers. ONNX Runtime's own lists name CUDA on any machine."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def refuse_failed_export(path: Path) -> None:
    """Raises NothingDone where a file is missing, or its parity record says that it is not what torch computes."""
    if not path.is_file():
        raise NothingDone(f"{path}: no such file; make it with `sfm-match export onnx`")
    record_path = path.with_suffix(".parity.json")
    if not record_path.is_file():
        return
    record = json.loads(record_path.read_text(encoding="utf-8"))
    if record["sha256"] != sha256_of(path):
        raise NothingDone(f"{path}: not the file that {record_path.name} speaks of; export it again")
    if not record["passed"]:
        raise NothingDone(f"{path}: failed its parity check against torch ({record_path.name}); export it again")
