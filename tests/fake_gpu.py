# ruff: noqa: N801, N802, N815 - the names are those of CUDA
"""A GPU that is not there: CUDA's interface over host memory; `fake_tensorrt` has TensorRT's.

It has the names that the project uses and refuses what the real ones refuse where that is known: no capture right after
a change of shape, no reading of freed memory, and a capture is spoiled where another thread meanwhile does what waits
for the whole device. A thread's work goes to the GPU that it set, and to no stream, engine or memory of another one.
What it cannot tell is speed, and what the real ones do besides.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from sfm_match.runtime.devices import Gpu

GPU = Gpu("Fake GPU", (9, 0), 80 << 30)


def _stream(handle: int) -> Any:
    from cuda.bindings.runtime import cudaStream_t

    return cudaStream_t(handle)


def _handle(stream: Any) -> int:
    from cuda.bindings.utils import get_cuda_native_handle

    return int(get_cuda_native_handle(stream))


class FakeCuda:
    """`cuda.bindings.runtime`."""

    cudaHostAllocPortable, cudaStreamNonBlocking = 1, 1

    class cudaError_t(Enum):
        cudaSuccess = 0
        cudaErrorMemoryAllocation = 2
        cudaErrorStreamCaptureUnsupported = 900

    class cudaMemcpyKind(Enum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(Enum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.capturing: dict[int, list[tuple[Any, Callable[[], None]]]] = {}
        self.streams = self.destroyed = self.launches = 0
        self._thread = threading.local()
        self.device_of: dict[int, int] = {}  # memory's address, and (negative) stream's number -> GPU
        self.limit: int | None = None  # bytes of the largest allocation
        self.capture_fails = False
        self.capture_seconds = 0.0  # how long one lasts
        self.spoiled: set[int] = set()  # streams whose capture something broke
        self.broken = 0  # captures, so far

    def waits_for_the_device(self) -> None:
        """What no capture survives."""
        self.spoiled |= self.capturing.keys()

    @property
    def device(self) -> int:
        """Of this thread."""
        return getattr(self._thread, "device", 0)

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        self._thread.device = index
        return self._ok()

    def _ok(self, *values: Any) -> tuple[Any, ...]:
        return (self.cudaError_t.cudaSuccess, *values) if values else (self.cudaError_t.cudaSuccess, None)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self.limit is not None and size > self.limit:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        self.waits_for_the_device()
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        self.device_of[ctypes.addressof(block)] = self.device
        return self._ok(ctypes.addressof(block))

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaHostAllocPortable
        return self.cudaMalloc(size) if self.limit is None else self._ok(self._unlimited(size))

    def _unlimited(self, size: int) -> int:
        limit, self.limit = self.limit, None
        pointer = self.cudaMalloc(size)[1]
        self.limit = limit
        return int(pointer)

    def cudaFree(self, pointer: int) -> tuple[Any, ...]:
        self.waits_for_the_device()
        del self.memory[pointer]
        return self._ok()

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        self.streams += 1
        self.device_of[-self.streams] = self.device
        return self._ok(_stream(self.streams))

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        assert 0 < _handle(stream) <= self.streams
        self.destroyed += 1
        return self._ok()

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return self._ok()

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        assert isinstance(kind, self.cudaMemcpyKind)
        assert target in self.memory
        assert source in self.memory
        assert _handle(stream) not in self.capturing
        ctypes.memmove(target, source, size)
        return self._ok()

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        assert _handle(stream) not in self.capturing
        return self._ok()

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        assert isinstance(mode, self.cudaStreamCaptureMode)
        assert self.device_of[-_handle(stream)] == self.device, "a stream of another GPU"
        self.capturing[_handle(stream)] = []
        return self._ok()

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        time.sleep(self.capture_seconds)
        handle = _handle(stream)
        work = self.capturing.pop(handle)
        spoiled = handle in self.spoiled
        self.spoiled.discard(handle)
        self.broken += spoiled
        if self.capture_fails or spoiled:
            for context, _ in work:
                context.captured = False
            return self.cudaError_t.cudaErrorStreamCaptureUnsupported, None
        return self._ok(work)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        return self._ok(graph)

    def cudaGraphDestroy(self, _graph: Any) -> tuple[Any, ...]:
        return self._ok()

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        for context, _ in graph:
            context.captured = False
        return self._ok()

    def cudaGraphLaunch(self, graph: Any, _stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for _, work in graph:
            work()
        return self._ok()

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return self.cudaError_t.cudaSuccess, 60 << 30, 80 << 30
