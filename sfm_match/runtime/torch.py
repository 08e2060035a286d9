"""PyTorch: the reference, and the engine for GPUs that ONNX Runtime and TensorRT do not serve.

On CUDA each thread has a stream of its own, and a shape that comes again is replayed as a CUDA graph.
"""

import contextlib
import inspect
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfm_match.job.concurrency import WorkerThreads
from sfm_match.runtime.match_choice import MatchChooser, fused_matchers
from sfm_match.runtime.protocol import EngineError, OutOfMemory, Part, Value, engine_failure

GRAPHS = 16  # of a thread and network; the oldest goes
_CAPTURES = 3  # tries at a shape


@cache
def best_device() -> str:
    """`cuda` (also AMD's), `xpu`, `mps` or `cpu`."""
    for name in ("cuda", "xpu", "mps"):
        backend = getattr(torch.backends, name, None) if name == "mps" else getattr(torch, name, None)
        if backend is not None and backend.is_available():
            return name
    return "cpu"


def gpu_count() -> int:
    """GPUs of the best device's kind."""
    kind = best_device()
    if kind in ("cuda", "xpu"):
        return int(getattr(torch, kind).device_count())
    return int(kind == "mps")


def set_up_cudnn() -> None:
    """Convolutions of float32 in float32, by the fastest algorithm; matching's products are of halves.

    Of the process, and set once: what a context manager sets, one thread would take back while another runs. (And
    `cudnn.flags(...)` turns cuDNN off where it is not told otherwise.)
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


class TorchSession:
    """A module in evaluation mode, with or without half-precision weights."""

    def __init__(self, part: Part, runtime: "TorchRuntime") -> None:
        module: nn.Module = part.module().eval()
        if part.half:
            from exports.half_precision import halve

            module = halve(module)  # before it leaves the CPU: batch norms are folded in float32
        self._module: nn.Module = module.to(runtime.place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._why_not_fused = ""
        if part.fused:
            self._module, self._why_not_fused = runtime.with_kernels(self._module)
        self._inputs = list(inspect.signature(self._module.forward).parameters)
        self._outputs = part.outputs
        self._runtime = runtime
        self._graphs = threading.local()
        if runtime.device == "cuda":
            with runtime.exclusive:
                # the weights were brought on another stream than those that will read them
                torch.cuda.synchronize(runtime.place)

    @property
    def note(self) -> str:
        """Which kernels run and why, as far as there was a choice; empty before the first call."""
        return self._module.note if isinstance(self._module, MatchChooser) else self._why_not_fused

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        given = tuple(feeds[name] for name in self._inputs)
        with self._runtime.working():
            found = self._replayed(given) if self._runtime.device == "cuda" else self._module(*given)
        return dict(zip(self._outputs, found if isinstance(found, tuple) else (found,), strict=True))

    def _replayed(self, given: tuple[Tensor, ...]) -> Any:
        """Eager at a shape's first sight, captured at its second, replayed from then on."""
        graphs: dict[Any, _Seen] = self._graphs.__dict__.setdefault("by_shape", {})
        shape = tuple((tensor.shape, tensor.dtype) for tensor in given)
        seen = graphs[shape] = graphs.pop(shape, _Seen())  # the latest used last
        if len(graphs) > GRAPHS:
            del graphs[next(iter(graphs))]
        if seen.graph is None:
            # one thread at a time: a capture begins by waiting for the whole device, and a first run may do so;
            # neither survives in another thread's capture
            with self._runtime.exclusive:
                if 1 <= seen.runs <= _CAPTURES:
                    seen.graph = self._captured(given)
                seen.runs += 1
                if seen.graph is None:
                    return self._module(*given)
        return seen.graph(*given)

    def _captured(self, given: tuple[Tensor, ...]) -> "_Graph | None":
        """As a graph, None where that cannot be."""
        try:
            return _Graph(self._module, given, self._runtime.graph_pool())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None


@dataclass
class _Seen:
    """What a thread and network know of a shape."""

    runs: int = 0  # not replayed
    graph: "_Graph | None" = None


class _Graph:
    """A module's kernels for one shape; graphs of one thread share memory, because they run one after the other."""

    def __init__(self, module: nn.Module, given: tuple[Tensor, ...], pool: Any) -> None:
        self._given = tuple(tensor.clone() for tensor in given)
        self._graph = torch.cuda.CUDAGraph()
        # other threads may allocate meanwhile
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):
            self._found = module(*self._given)

    def __call__(self, *given: Tensor) -> Any:
        for mine, theirs in zip(self._given, given, strict=True):
            mine.copy_(theirs)
        self._graph.replay()
        return self._found


class TorchRuntime:
    """PyTorch on the best kind of device that it has."""

    on_device = True

    def __init__(self, device: str | None = None, *, index: int = 0, fused: bool | None = None) -> None:
        """
        Args:
            device: a kind; default: `best_device`.
            index: which of that kind.
            fused: match with kernels of Triton; default: on CUDA, where they agree with torch's and are faster
                (`match_choice`). On the CPU they need Triton's interpreter, and are for tests.
        """
        self._fused = fused
        self.device = device or best_device()
        self.place = torch.device(self.device, index) if self.device in ("cuda", "xpu") else torch.device(self.device)
        self.workers = WorkerThreads(2 if self.device == "cuda" else 1)
        self.exclusive = threading.RLock()
        self._streams = threading.local()
        if self.device == "cuda":
            set_up_cudnn()
        name = f" {torch.cuda.get_device_name(self.place)}" if self.device == "cuda" else ""
        self.provider = f"torch {torch.__version__}, {self.device.upper()}{name}"

    def load(self, part: Part) -> TorchSession:
        """Raises EngineError where kernels of Triton are asked for and is not available."""
        return TorchSession(part, self)

    def with_kernels(self, reference: nn.Module) -> tuple[nn.Module, str]:
        """MatchBlock with a choice of kernels, or alone, and why where that needs a word."""
        if self._fused is False or (self._fused is None and self.device != "cuda"):
            return reference, ""
        candidates, reason = fused_matchers(self.place)
        if candidates:
            return MatchChooser(reference, candidates, force=bool(self._fused)), ""
        if self._fused:
            raise EngineError(f"fused matching: {reason}")
        return reference, f"matching by torch ({reason})"

    def put(self, name: str, array: NDArray[Any]) -> Value:  # noqa: ARG002 - tensors are new each time
        tensor = torch.from_numpy(np.require(array, requirements=("C", "W")))
        with self.working():
            if self.device == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(self.place, non_blocking=self.device == "cuda")

    def get(self, value: Value) -> NDArray[Any]:
        with self.working():
            return np.asarray(value.cpu().numpy())

    def graph_pool(self) -> Any:
        """Of this thread."""
        if not hasattr(self._streams, "pool"):
            self._streams.pool = torch.cuda.graph_pool_handle()
        return self._streams.pool

    def free_memory(self) -> int | None:
        if self.device != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self.place)
        # what torch keeps for its next tensors is free, too
        kept = torch.cuda.memory_reserved(self.place) - torch.cuda.memory_allocated(self.place)
        return int(free + kept)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """On this thread's stream, without gradients; errors of torch as ours."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.device == "cuda":
                if not hasattr(self._streams, "mine"):
                    self._streams.mine = torch.cuda.Stream(self.place)  # type: ignore[no-untyped-call]
                stack.enter_context(torch.cuda.stream(self._streams.mine))  # and its device, the current one
            try:
                yield
            except torch.OutOfMemoryError as error:
                raise OutOfMemory(f"torch: {' '.join(str(error).split())}") from error
            except RuntimeError as error:  # cuBLAS and cuDNN that have no memory say so in a text
                raise engine_failure(f"torch: {error}") from error
