"""TensorRT's interface on the GPU of `fake_gpu`, with ONNX Runtime for the kernels.

It refuses tensors of 2^31 elements, as the real one does. Reasons go to the first logger of the process.
"""

import ctypes
import math
import types
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fake_gpu import FakeCuda


class _Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1


class _Logger:
    INTERNAL_ERROR, ERROR = _Severity.INTERNAL_ERROR, _Severity.ERROR

    def __init__(self) -> None:
        pass


class _Type(Enum):
    FLOAT = np.dtype(np.float32)
    HALF = np.dtype(np.float16)
    INT32 = np.dtype(np.int32)
    INT64 = np.dtype(np.int64)
    UINT8 = np.dtype(np.uint8)
    BOOL = np.dtype(np.bool_)
    BF16 = None


_ORT_TYPES = {"tensor(float)": _Type.FLOAT, "tensor(float16)": _Type.HALF, "tensor(int64)": _Type.INT64}
_ORT_TYPES |= {"tensor(int32)": _Type.INT32, "tensor(uint8)": _Type.UINT8}


class _Network:
    def __init__(self) -> None:
        self.plan = b""
        self.inputs: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, place: int) -> Any:
        return self.inputs[place]


class _Parser:
    def __init__(self, network: _Network, log: Any) -> None:
        self.network, self.log = network, log

    def parse_from_file(self, path: str) -> bool:
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001
            self.log.log(_Severity.ERROR, f"In node 0: INVALID_GRAPH: {type(error).__name__}")
            return False
        self.network.plan = Path(path).read_bytes()
        self.network.inputs = session.get_inputs()
        return True


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, largest: Any) -> None:
        self.shapes[name] = least, usual, largest


class _TimingCache:
    def serialize(self) -> bytes:
        return b"timings"


class _Config:
    def __init__(self) -> None:
        self.cleared: list[Any] = []
        self.pools: dict[Any, int] = {}
        self.builder_optimization_level = 3
        self.profile: _Profile | None = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool] = size

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, content: bytes) -> _TimingCache:
        assert isinstance(content, bytes)
        return _TimingCache()

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        assert isinstance(cache, _TimingCache)
        assert ignore_mismatch is False
        return True

    def get_timing_cache(self) -> _TimingCache:
        return _TimingCache()

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        good = all(a <= b <= c for s in profile.shapes.values() for a, b, c in zip(*s, strict=True))
        small = all(math.prod(largest) < 2**31 for _, _, largest in profile.shapes.values())
        return 0 if good and small else -1


class _Context:
    """ONNX Runtime behind TensorRT's calls; it wants one plain run at a shape before a capture, as TensorRT does."""

    def __init__(self, engine: "_Engine", cuda: FakeCuda) -> None:
        self.engine, self.cuda = engine, cuda
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.found: dict[str, tuple[int, ...]] = {}
        self.scratch = 0
        self.profiled = self.captured = False
        self.ran_at: dict[str, tuple[int, ...]] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profiled
        assert not self.captured, "a captured context was changed"
        self.shapes = {**self.shapes, name: tuple(shape)}
        return True

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert not self.captured, "a captured context was changed"
        self.addresses[name] = pointer
        return True

    def set_optimization_profile_async(self, place: int, stream: int) -> bool:
        assert place == 0
        assert 0 < stream <= self.cuda.streams
        self.profiled = True
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert size == self.update_device_memory_size_for_shapes()
        assert len(self.cuda.memory[pointer]) >= size
        assert not self.captured, "a captured context was changed"
        self.scratch = pointer

    def infer_shapes(self) -> list[str]:
        missing = [i.name for i in self.engine.session.get_inputs() if i.name not in self.shapes]
        if not missing:
            feeds = {i.name: np.zeros(self.shapes[i.name], _ORT_TYPES[i.type].value) for i in self._inputs()}
            self.found = {name: value.shape for name, value in self._run(feeds).items()}
        return missing

    def _inputs(self) -> Any:
        return self.engine.session.get_inputs()

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        names = [o.name for o in self.engine.session.get_outputs()]
        return dict(zip(names, self.engine.session.run(names, feeds), strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.found[name]

    def execute_async_v3(self, stream: int) -> bool:
        assert self.cuda.device == self.cuda.device_of[-stream] == self.engine.device, "work for another GPU"
        assert {self.cuda.device_of[pointer] for pointer in self.addresses.values()} == {self.engine.device}
        if stream in self.cuda.capturing:
            if self.ran_at != self.shapes:
                return False
            shapes, addresses, scratch = dict(self.shapes), dict(self.addresses), self.scratch
            self.cuda.capturing[stream].append((self, lambda: self._execute(shapes, addresses, scratch)))
            self.captured = not self.cuda.capture_fails
        else:
            if self.ran_at != self.shapes:
                self.cuda.waits_for_the_device()  # its kernels are loaded
            self._execute(self.shapes, self.addresses, self.scratch)
            self.ran_at = self.shapes
        return True

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: int) -> None:
        assert scratch in self.cuda.memory

        def view(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
            assert addresses[name] in self.cuda.memory
            size = int(np.prod(shape)) * dtype.itemsize
            return np.frombuffer((ctypes.c_char * size).from_address(addresses[name]), dtype).reshape(shape)

        feeds = {i.name: view(i.name, shapes[i.name], _ORT_TYPES[i.type].value) for i in self._inputs()}
        for name, value in self._run(feeds).items():
            view(name, value.shape, value.dtype)[...] = value


class _Engine:
    def __init__(self, plan: bytes, cuda: FakeCuda) -> None:
        cuda.waits_for_the_device()
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.cuda, self.device = cuda, cuda.device

    def create_execution_context(self, strategy: Any) -> _Context:
        assert strategy.name == "USER_MANAGED"
        self.cuda.waits_for_the_device()
        return _Context(self, self.cuda)

    def get_tensor_dtype(self, name: str) -> _Type:
        return next(_ORT_TYPES[o.type] for o in self.session.get_outputs() if o.name == name)


def fake_tensorrt(cuda: FakeCuda) -> types.ModuleType:
    """The module `tensorrt`. `module.configs` holds the configuration of every build."""
    module = types.ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    configs: list[_Config] = []
    loggers: list[Any] = []

    class Builder:
        def __init__(self, log: Any) -> None:
            loggers.append(log)

        def create_network(self, flags: int) -> _Network:
            assert flags == 1 << 1
            return _Network()

        def create_builder_config(self) -> _Config:
            configs.append(_Config())
            return configs[-1]

        def create_optimization_profile(self) -> _Profile:
            return _Profile()

        def build_serialized_network(self, network: _Network, _config: _Config) -> bytes:
            return network.plan

    class Runtime:
        def __init__(self, log: Any) -> None:
            loggers.append(log)

        def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
            if cuda.limit is not None and len(plan) > cuda.limit:
                loggers[0].log(_Severity.ERROR, "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)")
                return None
            return _Engine(plan, cuda) if plan else None

    module.__dict__.update(
        __version__="11.4.0.106",
        configs=configs,
        ILogger=_Logger,
        Builder=Builder,
        OnnxParser=lambda network, _log: _Parser(network, loggers[0]),
        Runtime=Runtime,
        DataType=_Type,
        NetworkDefinitionCreationFlag=IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1}),
        ExecutionContextAllocationStrategy=Enum("ExecutionContextAllocationStrategy", ["USER_MANAGED"]),
        BuilderFlag=Enum("BuilderFlag", ["TF32"]),
        MemoryPoolType=Enum("MemoryPoolType", ["WORKSPACE"]),
    )
    return module
