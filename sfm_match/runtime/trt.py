"""TensorRT, natively: strongly typed networks, so that precision is the graph's; one code for TensorRT 10.13+ and 11.

Engines are built at first use and cached. A file from another machine or version has another name and is left alone; a
damaged one is built anew. Nothing here may be touched without a driver: TensorRT's runtime then crashes the process.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from sfm_match.runtime import EngineError, OutOfMemory, Part, Shapes, Value
from sfm_match.runtime.cuda import DeviceArray, Lane, free_memory
from sfm_match.runtime.devices import driver_present, gpus
from sfm_match.runtime.engines import EngineFacts, EngineStore
from sfm_match.runtime.planning import profile_for
from sfm_match.store.shard import sha256_of

WORKSPACE = 0.5  # of the free memory, for the builder
LEVEL = 3  # of the builder's optimisation, TensorRT's own default


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps the builder's reasons; only what is needed reaches the user."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(" ".join(text.split()))

    def reasons(self) -> str:
        return "; ".join(dict.fromkeys(self.errors)) or "no reason given"


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
        EngineError: TensorRT refuses the network, with its reasons.
    """
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise EngineError(f"{path}: TensorRT {trt.__version__} cannot parse it: {log.reasons()}")
    config = builder.create_builder_config()
    config.builder_optimization_level = LEVEL
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    cache = config.create_timing_cache(timing)
    config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        name = network.get_input(place).name
        if name in shapes:
            profile.set_shape(name, *shapes[name])
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{path}: TensorRT refuses the shapes {dict(shapes)}: {log.reasons()}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{path}: TensorRT {trt.__version__} cannot build it: {log.reasons()}")
    learned = config.get_timing_cache()
    return bytes(plan), bytes(learned.serialize()) if learned is not None else b""


class TrtSession:
    """A network, with an engine for each of its profiles: a job's shapes are known, and all of them will come."""

    def __init__(self, part: Part, runtime: "TrtRuntime") -> None:
        self._part, self._runtime = part, runtime
        self._engines = [runtime.engine(part, shapes) for shapes in part.profiles]
        self._contexts = threading.local()

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        lane = self._runtime.lane()
        shapes = {name: value.shape for name, value in feeds.items()}
        place = profile_for(self._part.profiles, shapes)
        if place is None:
            raise EngineError(f"{self._part.path.name}: no TensorRT profile for {shapes}")
        engine, context = self._engines[place], self._context(place)
        for name, value in feeds.items():
            if not context.set_input_shape(name, value.shape):
                raise EngineError(f"{self._part.path.name}: TensorRT refuses {name} {value.shape}")
            context.set_tensor_address(name, value.pointer)
        if unknown := context.infer_shapes():
            raise EngineError(f"{self._part.path.name}: shapes not known to TensorRT: {', '.join(unknown)}")
        found: dict[str, Value] = {}
        for name in self._part.outputs:
            shape, dtype = tuple(context.get_tensor_shape(name)), numpy_type(engine.get_tensor_dtype(name))
            found[name] = lane.buffer((id(self), name), shape, dtype)
            context.set_tensor_address(name, found[name].pointer)
        size = engine.device_memory_size_v2
        context.set_device_memory(lane.scratch(size), size)
        key = (id(self), place, *((name, v.shape, v.pointer) for name, v in {**feeds, **found}.items()))
        lane.enqueue(key, lambda: bool(context.execute_async_v3(lane.stream)))
        return found

    def _context(self, place: int) -> Any:
        """Of this thread: contexts are not shared between lanes."""
        mine: dict[int, Any] = self._contexts.__dict__.setdefault("by_profile", {})
        if place not in mine:
            # their memory is the lane's: a context of its own for every network and profile would fill the GPU
            managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            mine[place] = self._engines[place].create_execution_context(managed)
            if mine[place] is None:
                del mine[place]
                raise OutOfMemory(f"{self._part.path.name}: no memory for TensorRT's execution context")
        return mine[place]


class TrtRuntime:
    """TensorRT on the first GPU."""

    on_device = True
    lanes = 2

    def __init__(self, cache: Path) -> None:
        if not driver_present():
            raise EngineError("TensorRT: no NVIDIA GPU with a driver")
        self._store = EngineStore(cache)
        self._log = Log()
        self._runtime = trt.Runtime(self._log)
        self._lanes = threading.local()
        self.provider = f"TensorRT {trt.__version__}, {gpus()[0].name}"

    def load(self, part: Part) -> TrtSession:
        return TrtSession(part, self)

    def lane(self) -> Lane:
        """Of this thread."""
        if not hasattr(self._lanes, "mine"):
            self._lanes.mine = Lane()
        lane: Lane = self._lanes.mine
        return lane

    def put(self, name: str, array: NDArray[Any]) -> DeviceArray:
        return self.lane().put(name, np.ascontiguousarray(array))

    def get(self, value: Value) -> NDArray[Any]:
        return self.lane().get(value)

    def free_memory(self) -> int | None:
        return free_memory()

    def engine(self, part: Part, shapes: Shapes) -> Any:
        """From the cache, or built."""
        gpu = gpus()[0]
        facts = EngineFacts(
            sha256_of(part.path), trt.__version__, gpu.name, gpu.compute_capability, shapes, part.exact, LEVEL
        )

        def make(timing: bytes) -> tuple[bytes, bytes]:
            room = int(WORKSPACE * free_memory())
            return build(part.path, shapes, exact=part.exact, workspace=room, timing=timing)

        return self._store.load(part.path.stem, facts, make, self._runtime.deserialize_cuda_engine)


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
