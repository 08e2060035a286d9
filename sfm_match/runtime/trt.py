"""TensorRT, natively: strongly typed networks, so that precision is the graph's; one code for TensorRT 10.13+ and 11.

Engines are built at first use and cached. A file from another machine or version has another name and is left alone; a
damaged one is built anew. Nothing here may be touched without a driver: TensorRT's runtime then crashes the process.
"""

import contextlib
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from sfm_match.job.concurrency import WorkerThreads
from sfm_match.runtime.cuda import DeviceArray, Graph, WorkerStream, free_memory, use_device
from sfm_match.runtime.devices import driver_present
from sfm_match.runtime.engines import EngineInputs, EngineStore
from sfm_match.runtime.gpus import gpus
from sfm_match.runtime.planning import profile_for
from sfm_match.runtime.protocol import EngineError, OutOfMemory, Part, Shapes, Value, engine_failure
from sfm_match.store.shard import sha256_of

WORKSPACE = 0.5  # of the free memory, for the builder
LEVEL = 3  # of the builder's optimisation, TensorRT's own default
CONTEXTS = 64  # of a worker: sixteen shapes of four networks
_CAPTURE_AT = 2  # runs; an engine wants one at a shape before it is captured
_CAPTURES = 3  # tries; what another library does at the moment can spoil one
_REASONS = 32  # of TensorRT's latest, kept
_NUMBERS = itertools.count()


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps TensorRT's latest reasons; only what is needed reaches the user.

    There is one (`LOG`): TensorRT takes the first logger of a process for everything that follows.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.said = 0  # reasons so far
        self._latest: deque[tuple[int, str]] = deque(maxlen=_REASONS)

    def log(self, severity: Any, text: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self._latest.append((self.said, text))
            self.said += 1

    def failure(self, what: str, since: int) -> EngineError:
        """What failed, with the reasons that came after the first `since`."""
        reasons = dict.fromkeys(" ".join(text.split()) for place, text in self._latest if place >= since)
        return engine_failure(f"{what}: {'; '.join(reasons) or 'no reason given'}")


LOG = Log()


def build(
    path: Path, shapes: Shapes, *, exact: bool, workspace: int | None, timing: bytes = b""
) -> tuple[bytes, bytes]:
    """Builds an engine.

    Args:
        path: ONNX.
        shapes: the profile; inputs of fixed shape need not be in it.
        exact: without TF32.
        workspace: bytes that the builder may use, None: TensorRT's own limit.
        timing: an earlier build's timing cache of the same TensorRT and GPU.

    Returns:
        The serialised engine, and the timing cache.

    Raises:
        EngineError: TensorRT refuses the network, with its reasons; OutOfMemory where that is the reason.
    """
    said, tensorrt = LOG.said, f"TensorRT {trt.__version__}"
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse_from_file(str(path)):
        raise LOG.failure(f"{path}: {tensorrt} cannot parse it", said)
    config = builder.create_builder_config()
    config.builder_optimization_level = LEVEL
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    cache = config.create_timing_cache(timing) or config.create_timing_cache(b"")  # the first may be damaged
    config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        name = network.get_input(place).name
        if name in shapes:
            profile.set_shape(name, *shapes[name])
    if config.add_optimization_profile(profile) < 0:
        raise LOG.failure(f"{path}: {tensorrt} refuses the shapes {dict(shapes)}", said)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise LOG.failure(f"{path}: {tensorrt} cannot build it", said)
    learned = config.get_timing_cache()
    return bytes(plan), bytes(learned.serialize()) if learned is not None else b""


@dataclass
class _Prepared:
    """A network at one set of shapes, on one worker. A graph holds its context's state: nothing changes both."""

    context: Any
    outputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    scratch: int  # bytes
    places: tuple[int, ...] = ()  # addresses that the context knows
    runs: int = 0  # at these addresses
    graph: Graph | None = None


class TrtSession:
    """A network, with an engine for each of its profiles: a job's shapes are known, and all of them will come."""

    def __init__(self, part: Part, runtime: "TrtRuntime") -> None:
        self._part, self._runtime = part, runtime
        self._number = next(_NUMBERS)
        digest = sha256_of(part.path)
        self._engines = [runtime.engine(part, digest, shapes) for shapes in part.profiles]

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        worker = self._runtime.worker()
        prepared = self._prepared(worker, {name: value.shape for name, value in feeds.items()})
        found: dict[str, Value] = {
            name: worker.buffer((self._number, name), shape, dtype) for name, (shape, dtype) in prepared.outputs.items()
        }
        scratch = worker.scratch(prepared.scratch)
        tensors = {**feeds, **found}
        places = (scratch, *(value.pointer for value in tensors.values()))
        if prepared.graph is not None and places == prepared.places:
            prepared.graph.launch()
        else:
            with worker.exclusive:  # a first run may load kernels, which waits for the device
                self._run_plainly(worker, prepared, tensors, scratch, places)
        return found

    def _run_plainly(
        self,
        worker: WorkerStream,
        prepared: _Prepared,
        tensors: Mapping[str, Value],
        scratch: int,
        places: tuple[int, ...],
    ) -> None:
        """Once more without a graph, and from the second time on tries to have one for the next."""
        context = prepared.context
        if places != prepared.places:
            prepared.graph, prepared.runs, prepared.places = None, 0, places
            for name, value in tensors.items():
                context.set_tensor_address(name, value.pointer)
            context.set_device_memory(scratch, prepared.scratch)

        def start() -> bool:
            return bool(context.execute_async_v3(worker.stream))

        said = LOG.said
        if not start():
            raise LOG.failure(f"{self._part.path.name}: TensorRT could not start", said)
        prepared.runs += 1
        if _CAPTURE_AT <= prepared.runs < _CAPTURE_AT + _CAPTURES:
            prepared.graph = worker.captured(start)

    def _prepared(self, worker: WorkerStream, shapes: dict[str, tuple[int, ...]]) -> _Prepared:
        """A context for these shapes alone, as captured graphs want it; the longest unused one goes."""
        key = self._number, *shapes.items()
        prepared: _Prepared | None = worker.prepared.pop(key, None)
        if prepared is None:
            with worker.exclusive:
                prepared = self._prepare(worker, shapes)
                while len(worker.prepared) >= CONTEXTS:
                    worker.wait()
                    del worker.prepared[next(iter(worker.prepared))]
        worker.prepared[key] = prepared
        return prepared

    def _prepare(self, worker: WorkerStream, shapes: dict[str, tuple[int, ...]]) -> _Prepared:
        name = self._part.path.name
        place = profile_for(self._part.profiles, shapes)
        if place is None:
            raise EngineError(f"{name}: no TensorRT profile for {shapes}")
        engine, said = self._engines[place], LOG.said
        # its memory is the worker's: one of its own for every network and shape would fill the GPU
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise OutOfMemory(str(LOG.failure(f"{name}: no memory for TensorRT's execution context", said)))
        context.set_optimization_profile_async(0, worker.stream)
        worker.wait()
        for tensor, shape in shapes.items():
            if not context.set_input_shape(tensor, shape):
                raise LOG.failure(f"{name}: TensorRT refuses {tensor} {shape}", said)
        try:
            unknown = context.infer_shapes()
        except RuntimeError as error:
            raise engine_failure(f"{name}: TensorRT refuses {shapes}: {error}") from error
        if unknown:
            raise EngineError(f"{name}: shapes not known to TensorRT: {', '.join(unknown)}")
        outputs = {
            tensor: (tuple(context.get_tensor_shape(tensor)), numpy_type(engine.get_tensor_dtype(tensor)))
            for tensor in self._part.outputs
        }
        return _Prepared(context, outputs, int(context.update_device_memory_size_for_shapes()))


class TrtRuntime:
    """TensorRT on one GPU."""

    on_device = True

    def __init__(self, cache: Path, index: int = 0) -> None:
        """
        Args:
            cache: folder of engines.
            index: of the GPU.
        """
        if not driver_present():
            raise EngineError("TensorRT: no NVIDIA GPU with a driver")
        self._index, self._gpu = index, gpus()[index]
        use_device(index)
        self._store = EngineStore(cache)
        self._runtime = trt.Runtime(LOG)
        self._exclusive = threading.RLock()
        self.workers = WorkerThreads(2)
        self._mine = threading.local()
        every: list[WorkerStream] = []
        self._every_worker = every
        weakref.finalize(self, _release, every)
        self.provider = f"TensorRT {trt.__version__}, {self._gpu.name}"

    def load(self, part: Part) -> TrtSession:
        return TrtSession(part, self)

    def worker(self) -> WorkerStream:
        """Of this thread."""
        if not hasattr(self._mine, "worker"):
            use_device(self._index)  # of this thread, from now on
            self._mine.worker = WorkerStream(self._exclusive)
            self._every_worker.append(self._mine.worker)
        worker: WorkerStream = self._mine.worker
        return worker

    def put(self, name: str, array: NDArray[Any]) -> DeviceArray:
        return self.worker().put(name, np.ascontiguousarray(array))

    def get(self, value: Value) -> NDArray[Any]:
        return self.worker().get(value)

    def free_memory(self) -> int | None:
        use_device(self._index)
        return free_memory()

    def engine(self, part: Part, digest: str, shapes: Shapes) -> Any:
        """From the cache, or built; `digest` is the file's sha256."""
        gpu = self._gpu
        use_device(self._index)  # a worker that does a batch again in float32 builds, too
        inputs = EngineInputs(digest, trt.__version__, gpu.name, gpu.compute_capability, shapes, part.exact, LEVEL)

        def make(timing: bytes) -> tuple[bytes, bytes]:
            room = int(WORKSPACE * free_memory())
            return build(part.path, shapes, exact=part.exact, workspace=room, timing=timing)

        def open_engine(plan: bytes) -> Any:
            said = LOG.said
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None and isinstance(failure := LOG.failure(part.path.name, said), OutOfMemory):
                raise failure  # nothing is wrong with the engine
            return engine

        with self._exclusive:
            return self._store.load(part.path.stem, inputs, make, open_engine)


def _release(workers: list[WorkerStream]) -> None:
    """What a runtime that is no more had on the GPU."""
    for worker in workers:
        with contextlib.suppress(EngineError):  # the driver may be gone at the end of the process
            worker.release()
    workers.clear()


def numpy_type(kind: Any) -> np.dtype[Any]:
    """TensorRT's type of a tensor as numpy's."""
    known = {
        trt.DataType.FLOAT: np.float32,
        trt.DataType.HALF: np.float16,
        trt.DataType.INT32: np.int32,
        trt.DataType.INT64: np.int64,
        trt.DataType.UINT8: np.uint8,
        trt.DataType.BOOL: np.bool_,
    }
    if kind not in known:
        raise EngineError(f"TensorRT gives {kind}, which numpy does not have")
    return np.dtype(known[kind])
