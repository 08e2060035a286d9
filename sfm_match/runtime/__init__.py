"""Engines behind one small protocol, chosen by name or `auto`.

A `Runtime` is an engine on a device. It loads `Part`s into `Session`s, which take and give values that live on the
device; `put` and `get` carry arrays there and back. On the CPU values are plain arrays. Two threads may use a runtime
at once, each with values of its own (`lanes`), so that one copies while the other computes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.lanes import Lanes
from sfm_match.runtime.devices import Choice, choose, driver_present
from sfm_match.store.shard import sha256_of

__all__ = ["Choice", "choose", "driver_present"]

GRAPHS = Path(__file__).parent / "graphs"  # the networks without weights (`exports.graphs`)

Arrays = dict[str, NDArray[Any]]
Value = Any  # an array on the device of one runtime; what it is, is that runtime's business
Provider = str | tuple[str, dict[str, Any]]  # ONNX Runtime's name for one, alone or with its options
Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> least, usual and largest shape


class EngineError(SfmMatchError):
    """The engine refused the network, or could not run it."""


class OutOfMemory(EngineError):
    """The device has no memory for this batch; a smaller one may fit."""


# as CUDA, cuBLAS, cuDNN, TensorRT, ONNX Runtime and torch say it
_NO_MEMORY = ("out of memory", "outofmemory", "failed to allocate memory", "alloc_failed", "allocation_failed")


def engine_failure(text: str) -> EngineError:
    """An engine's message as our error: `OutOfMemory` where it speaks of memory, whichever library it is from."""
    lowered = text.lower()
    kind = OutOfMemory if any(sign in lowered for sign in _NO_MEMORY) else EngineError
    return kind(" ".join(text.split()))


@dataclass(frozen=True)
class Part:
    """A network, for any engine."""

    path: Path  # ONNX
    module: Callable[[], Any]  # the same in torch, a torch.nn.Module whose arguments are named as the file's inputs
    outputs: tuple[str, ...]  # in the order of the file
    exact: bool = True  # products in full float32; without, TF32 will do
    half: bool = False  # weights in half precision
    fused: bool = False  # `runtime.fused_softmax` has kernels for it
    profiles: Sequence[Shapes] = field(default=())  # for TensorRT: what it will see, the most specific first


class Session(Protocol):
    """A network ready to run."""

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Inputs by name to outputs by name, on the device.

        A session's outputs are good until the same thread runs that session again.

        Raises:
            OutOfMemory: a smaller batch may fit.
            EngineError: the engine failed.
        """


class Runtime(Protocol):
    """An engine on a device."""

    @property
    def provider(self) -> str:
        """What really runs networks, for the log."""

    @property
    def on_device(self) -> bool:
        """Whether values are worth keeping there: selection and matching then run there, too."""

    @property
    def lanes(self) -> Lanes:
        """The threads that it pays to use at once."""

    def load(self, part: Part) -> Session:
        """Raises EngineError where the engine refuses the network."""

    def put(self, name: str, array: NDArray[Any]) -> Value:
        """To the device. It is good until the same thread puts another array under this name."""

    def get(self, value: Value) -> NDArray[Any]:
        """From the device, after all that makes it."""

    def free_memory(self) -> int | None:
        """Bytes of the device's memory, None where it is the host's."""


def create_runtime(device: str, cache: Path, index: int = 0) -> Runtime:
    """The engine for a device.

    Args:
        device: a name of `device_names.ENGINES`.
        cache: folder of what engines build once.
        index: of the GPU.

    Raises:
        UsageError: it cannot be had on this machine; the message says what is missing.
    """
    if device in ("cpu", "cuda", "ort-tensorrt"):
        from sfm_match.runtime.ort import OrtRuntime

        return OrtRuntime(device, cache, index=index)
    if device == "tensorrt":
        from sfm_match.runtime.trt import TrtRuntime

        return TrtRuntime(cache, index)
    if device == "torch":
        from sfm_match.runtime.torch import TorchRuntime

        return TorchRuntime(index=index)
    raise UsageError(f"--device {device}: no such engine")


def resolve_precision(precision: str, device: str) -> str:
    """`auto` by device: half on a GPU. On a CPU half is slower than single, and less exact.

    Args:
        precision: `auto`, `fp32` or `fp16`.
        device: not `auto`.
    """
    if device == "torch":
        from sfm_match.runtime.torch import best_device

        device = best_device()
    if device == "cpu":
        if precision == "fp16":
            raise UsageError("--precision fp16: not on the CPU; accepted there are auto, fp32")
        return "fp32"
    return "fp16" if precision == "auto" else precision


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
