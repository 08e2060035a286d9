"""Memory, copies and graphs on an NVIDIA GPU, over cuda-bindings: what the native TensorRT backend needs, no more.

A `WorkerStream` belongs to one thread: a stream, buffers that only grow, and pinned staging memory, so that copies of
one worker overlap with the work of another and addresses stay the same from one batch to the next, as CUDA graphs want
it.

While one worker captures, no other may do what waits for the whole device: free memory, load a network, run a kernel
for the first time. All of that happens under one lock, `exclusive`; copies and launches of captured work need none.
"""

import ctypes
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from cuda.bindings.utils import get_cuda_native_handle
from numpy.typing import NDArray

from sfm_match.runtime.protocol import EngineError, OutOfMemory


@dataclass(frozen=True)
class DeviceArray:
    """An array in a worker's memory."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def call(result: tuple[Any, ...]) -> Any:
    """The value of a call of the CUDA runtime, or its error as ours."""
    error, *values = result
    if error == cudart.cudaError_t.cudaSuccess:
        return values[0] if values else None
    cudart.cudaGetLastError()  # or the next call tells of it again
    text = f"CUDA: {error.name}"
    raise OutOfMemory(text) if error == cudart.cudaError_t.cudaErrorMemoryAllocation else EngineError(text)


class _Buffer:
    """Memory that grows and never shrinks. Freeing waits for all that uses it: CUDA sees to that."""

    def __init__(self, exclusive: threading.RLock, allocate: Callable[[int], int], free: Callable[[int], Any]) -> None:
        self._exclusive, self._allocate, self._free = exclusive, allocate, free
        self.pointer, self._size = 0, 0

    def of(self, size: int) -> int:
        """At least `size` bytes; what they held is lost where they had to grow."""
        if size > self._size:
            with self._exclusive:
                self.release()
                self.pointer = int(self._allocate(size))
                self._size = size
        return self.pointer

    def release(self) -> None:
        if self._size:
            self._free(self.pointer)
        self.pointer, self._size = 0, 0


def _device_memory(exclusive: threading.RLock) -> _Buffer:
    return _Buffer(exclusive, lambda size: int(call(cudart.cudaMalloc(size))), cudart.cudaFree)


def _pinned_memory(exclusive: threading.RLock) -> _Buffer:
    portable = cudart.cudaHostAllocPortable
    return _Buffer(exclusive, lambda size: int(call(cudart.cudaHostAlloc(size, portable))), cudart.cudaFreeHost)


class WorkerStream:
    """One thread's stream and memory."""

    def __init__(self, exclusive: threading.RLock) -> None:
        self.exclusive = exclusive
        self._stream = call(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        self.stream = int(get_cuda_native_handle(self._stream))  # as TensorRT takes it
        self.prepared: dict[Hashable, Any] = {}  # what a session keeps here, the latest used last
        self._device: dict[Hashable, _Buffer] = {}
        self._pinned: dict[Hashable, _Buffer] = {}
        self._in_flight: set[Hashable] = set()  # pinned memory that a copy still reads
        self._scratch = _device_memory(exclusive)

    def scratch(self, size: int) -> int:
        """Memory for what runs next, shared by all that runs on this worker: it runs one after the other."""
        return self._scratch.of(max(size, 1))

    def buffer(self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Device memory under a name, of this shape."""
        array = DeviceArray(0, shape, dtype)
        memory = self._device.setdefault(key, _device_memory(self.exclusive))
        return DeviceArray(memory.of(max(array.nbytes, 1)), shape, dtype)

    def put(self, name: str, array: NDArray[Any]) -> DeviceArray:
        """Starts a copy to the device."""
        if name in self._in_flight:
            self.wait()
        target = self.buffer(("put", name), array.shape, array.dtype)
        if array.nbytes:
            staging = self._pinned.setdefault(name, _pinned_memory(self.exclusive)).of(array.nbytes)
            np.copyto(_view(staging, array.shape, array.dtype), array)
            self._copy(target.pointer, staging, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice)
            self._in_flight.add(name)
        return target

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """Waits for the worker's work, then for the copy."""
        if not array.nbytes:
            return np.empty(array.shape, array.dtype)
        staging = self._pinned.setdefault("from the device", _pinned_memory(self.exclusive)).of(array.nbytes)
        self._copy(staging, array.pointer, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self.wait()
        return _view(staging, array.shape, array.dtype).copy()

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        call(cudart.cudaMemcpyAsync(target, source, size, kind, self._stream))

    def wait(self) -> None:
        call(cudart.cudaStreamSynchronize(self._stream))
        self._in_flight.clear()

    def captured(self, work: Callable[[], bool]) -> "Graph | None":
        """Work on this stream as a graph, which is not run by this; None where it cannot be captured."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with self.exclusive:
            call(cudart.cudaStreamBeginCapture(self._stream, mode))
            started = work()
            error, graph = cudart.cudaStreamEndCapture(self._stream)
            if error != cudart.cudaError_t.cudaSuccess:
                cudart.cudaGetLastError()
                return None
            instance = call(cudart.cudaGraphInstantiate(graph, 0)) if started else None
            call(cudart.cudaGraphDestroy(graph))
        return Graph(instance, self._stream) if started else None

    def release(self) -> None:
        """Frees everything."""
        with self.exclusive:
            self.wait()
            self.prepared.clear()
            for memory in (self._scratch, *self._device.values(), *self._pinned.values()):
                memory.release()
            self._device.clear()
            self._pinned.clear()
            call(cudart.cudaStreamDestroy(self._stream))


class Graph:
    """Captured work."""

    def __init__(self, instance: Any, stream: Any) -> None:
        self._instance, self._stream = instance, stream
        self._destroy = cudart.cudaGraphExecDestroy

    def launch(self) -> None:
        call(cudart.cudaGraphLaunch(self._instance, self._stream))

    def __del__(self) -> None:
        self._destroy(self._instance)


def _view(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_char * size).from_address(pointer))
    view: NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)
    return view


def use_device(index: int) -> None:
    """Makes a GPU the calling thread's: what it allocates, and the streams that it makes, are there."""
    call(cudart.cudaSetDevice(index))


def free_memory() -> int:
    """Bytes of the current device."""
    error, free, _ = cudart.cudaMemGetInfo()
    call((error,))
    return int(free)
