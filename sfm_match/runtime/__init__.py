"""Engines behind one small protocol, chosen by name or `auto`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sfm_match.errors import UsageError

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
