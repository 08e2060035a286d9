"""What an engine is: parts go in, sessions come out, values stay on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError
from sfm_match.job.concurrency import WorkerThreads

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
    def workers(self) -> WorkerThreads:
        """The threads that it pays to use at once."""

    def load(self, part: Part) -> Session:
        """Raises EngineError where the engine refuses the network."""

    def put(self, name: str, array: NDArray[Any]) -> Value:
        """To the device. It is good until the same thread puts another array under this name."""

    def get(self, value: Value) -> NDArray[Any]:
        """From the device, after all that makes it."""

    def free_memory(self) -> int | None:
        """Bytes of the device's memory, None where it is the host's."""
