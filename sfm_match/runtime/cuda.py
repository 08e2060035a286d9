"""Memory, copies and graphs on an NVIDIA GPU, over cuda-bindings: what the native TensorRT backend needs, no more.

A `Lane` belongs to one thread: a stream, buffers that only grow, and pinned staging memory, so that copies of one lane
overlap with the work of another and addresses stay the same from one batch to the next, as CUDA graphs want it.
"""

import ctypes
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from sfm_match.runtime import EngineError, OutOfMemory

GRAPHS = 32  # of a lane; the oldest goes


@dataclass(frozen=True)
class DeviceArray:
    """An array in a lane's memory."""

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
    text = f"CUDA: {error.name}"
    raise OutOfMemory(text) if error == cudart.cudaError_t.cudaErrorMemoryAllocation else EngineError(text)


class _Buffer:
    """Memory that grows and never shrinks."""

    def __init__(self, allocate: Callable[[int], int], free: Callable[[int], Any]) -> None:
        self._allocate, self._free = allocate, free
        self.pointer, self._size = 0, 0

    def of(self, size: int) -> int:
        """At least `size` bytes; what they held is lost where they had to grow."""
        if size > self._size:
            self.release()
            self.pointer = int(self._allocate(size))
            self._size = size
        return self.pointer

    def release(self) -> None:
        if self._size:
            self._free(self.pointer)
        self.pointer, self._size = 0, 0


def _device_memory() -> _Buffer:
    return _Buffer(lambda size: int(call(cudart.cudaMalloc(size))), cudart.cudaFree)


def _pinned_memory() -> _Buffer:
    portable = cudart.cudaHostAllocPortable
    return _Buffer(lambda size: int(call(cudart.cudaHostAlloc(size, portable))), cudart.cudaFreeHost)


class Lane:
    """One thread's stream and memory."""

    def __init__(self) -> None:
        nonblocking = cudart.cudaStreamNonBlocking
        self.stream = int(call(cudart.cudaStreamCreateWithFlags(nonblocking)))
        self._device: dict[Hashable, _Buffer] = {}
        self._pinned: dict[Hashable, _Buffer] = {}
        self._in_flight: set[Hashable] = set()  # pinned memory that a copy still reads
        self._graphs: dict[Hashable, Any] = {}
        self._seen: set[Hashable] = set()
        self._scratch = _device_memory()

    def scratch(self, size: int) -> int:
        """Memory for what runs next, shared by all that runs on this lane: it runs one after the other."""
        before = self._scratch.pointer
        pointer = self._scratch.of(max(size, 1))
        if pointer != before:  # graphs hold the old place
            self._forget_graphs()
        return pointer

    def buffer(self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Device memory under a name, of this shape."""
        array = DeviceArray(0, shape, dtype)
        memory = self._device.setdefault(key, _device_memory())
        return DeviceArray(memory.of(max(array.nbytes, 1)), shape, dtype)

    def put(self, name: str, array: NDArray[Any]) -> DeviceArray:
        """Starts a copy to the device."""
        if name in self._in_flight:
            self.wait()
        target = self.buffer(("put", name), array.shape, array.dtype)
        if array.nbytes:
            staging = self._pinned.setdefault(name, _pinned_memory()).of(array.nbytes)
            np.copyto(_view(staging, array.shape, array.dtype), array)
            self._copy(target.pointer, staging, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice)
            self._in_flight.add(name)
        return target

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """Waits for the lane's work, then for the copy."""
        if not array.nbytes:
            return np.empty(array.shape, array.dtype)
        staging = self._pinned.setdefault(("get", array.pointer), _pinned_memory()).of(array.nbytes)
        self._copy(staging, array.pointer, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self.wait()
        return _view(staging, array.shape, array.dtype).copy()

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        call(cudart.cudaMemcpyAsync(target, source, size, kind, self.stream))

    def wait(self) -> None:
        call(cudart.cudaStreamSynchronize(self.stream))
        self._in_flight.clear()

    def enqueue(self, key: Hashable, work: Callable[[], bool]) -> None:
        """Runs work on the stream; work that comes again under the same key (shapes, addresses) is replayed.

        At its second sight it runs once more and is then captured: an engine wants one run at a shape before that.
        """
        graph = self._graphs.get(key)
        if graph is not None:
            call(cudart.cudaGraphLaunch(graph, self.stream))
            return
        if not work():
            raise EngineError("TensorRT could not start the network")
        if key in self._seen and key not in self._graphs:
            self._graphs[key] = self._captured(work)
            if len(self._graphs) > GRAPHS:
                self._destroy(self._graphs.pop(next(iter(self._graphs))))
        self._seen.add(key)

    def _captured(self, work: Callable[[], bool]) -> Any:
        """Or None where this work cannot be captured: it then runs as it did."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cudart.cudaStreamBeginCapture(self.stream, mode))
        started = work()
        error, graph = cudart.cudaStreamEndCapture(self.stream)
        if not started or error != cudart.cudaError_t.cudaSuccess:
            return None
        instance = call(cudart.cudaGraphInstantiate(graph, 0))
        call(cudart.cudaGraphDestroy(graph))
        return instance

    @staticmethod
    def _destroy(graph: Any) -> None:
        if graph is not None:
            cudart.cudaGraphExecDestroy(graph)

    def _forget_graphs(self) -> None:
        for graph in self._graphs.values():
            self._destroy(graph)
        self._graphs.clear()
        self._seen.clear()

    def release(self) -> None:
        """Frees everything; the lane is then empty, and good for other work."""
        self.wait()
        self._forget_graphs()
        for memory in (self._scratch, *self._device.values(), *self._pinned.values()):
            memory.release()
        self._device.clear()
        self._pinned.clear()


def _view(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_char * size).from_address(pointer))
    view: NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)
    return view


def free_memory() -> int:
    """Bytes of the current device."""
    error, free, _ = cudart.cudaMemGetInfo()
    call((error,))
    return int(free)
