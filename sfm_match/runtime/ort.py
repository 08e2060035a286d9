"""ONNX Runtime: CPU, CUDA and TensorRT providers. On a GPU values stay there, by IO binding."""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.cores import cores
from sfm_match.runtime.gpus import gpus
from sfm_match.runtime.planning import assumed_free, whole_range
from sfm_match.runtime.protocol import GRAPHS, Arrays, EngineError, Part, Provider, Value, engine_failure
from sfm_match.store.shard import sha256_of

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_WARNINGS, _ERRORS_ONLY, _SILENT = 2, 3, 4  # of ONNX Runtime; the first is its default
_SAMPLE = GRAPHS / "normalise.onnx"  # the smallest network there is


class OrtSession:
    """An ONNX file under ONNX Runtime, on the first of the providers that it can have; arrays in, arrays out."""

    def __init__(
        self,
        path: Path,
        providers: Sequence[Provider] = (CPU,),
        severity: int = _ERRORS_ONLY,
        threads: int = 0,
        *,
        keeps_memory: bool = True,
    ) -> None:
        """
        Args:
            path: of the file.
            providers: the first one available is used.
            severity: of what ONNX Runtime prints.
            threads: of the CPU; 0: one per core.
            keeps_memory: as in `create_runtime`.
        """
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = keeps_memory
        options.intra_op_num_threads = threads
        # Threads that wait in a loop take the cores from the next network: with two of them that follow one another, an
        # image of 1024 x 704 takes 118 ms, without 69.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = severity
        try:
            self.inner = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise engine_failure(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self.outputs = [output.name for output in self.inner.get_outputs()]

    @property
    def provider(self) -> str:
        return f"ONNX Runtime {onnxruntime.__version__}, {self.inner.get_providers()[0]}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        with _translated():
            return dict(zip(self.outputs, self.inner.run(self.outputs, dict(feeds)), strict=True))


class BoundSession:
    """The same with values that stay on the device."""

    def __init__(self, session: OrtSession, device: str, index: int) -> None:
        self._session, self._device, self._index = session, device, index

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        binding = self._session.inner.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._session.outputs:
            binding.bind_output(name, self._device, self._index)
        with _translated():
            self._session.inner.run_with_iobinding(binding)
        return dict(zip(self._session.outputs, binding.get_outputs(), strict=True))


class OrtRuntime:
    """ONNX Runtime on one device."""

    def __init__(
        self,
        device: str,
        cache: Path,
        *,
        on_device: bool | None = None,
        index: int = 0,
        at_once: int = 1,
        keeps_memory: bool = True,
    ) -> None:
        """
        Args:
            device: `cpu`, `cuda` or `ort-tensorrt`.
            cache: folder of TensorRT's engines.
            on_device: keep values in ONNX Runtime's own; default: on a GPU only. Tests of that path need no GPU.
            index: of the GPU.
            at_once: images that a CPU works on side by side: as fast as one on all cores where there are two, faster
                where there are more, since a small network does not fill them.
        """
        self._device, self._cache, self._index, self._keeps_memory = device, cache, index, keeps_memory
        self.on_device = device != "cpu" if on_device is None else on_device
        self.workers = WorkerThreads(at_once if device == "cpu" else 2)
        self._threads = max(1, cores() // at_once)
        self._memory = "cpu" if device == "cpu" else "cuda"
        wanted = {"cpu": CPU, "cuda": CUDA, "ort-tensorrt": TENSORRT}[device]
        self._wanted = wanted
        self.provider = f"ONNX Runtime {onnxruntime.__version__}, {wanted}"
        if device != "cpu":
            preload()

    def load(self, part: Part) -> OrtSession | BoundSession:
        session = OrtSession(part.path, self._providers(part), threads=self._threads, keeps_memory=self._keeps_memory)
        used = session.inner.get_providers()[0]
        if used != self._wanted:
            raise EngineError(
                f"{part.path.name}: asked for {self._wanted}, ONNX Runtime fell back to {used}; "
                "`sfm-match doctor` says what is missing"
            )
        return BoundSession(session, self._memory, self._index) if self.on_device else session

    def _providers(self, part: Part) -> list[Provider]:
        if self._device == "cpu":
            return [CPU]
        cuda = (CUDA, cuda_options(part, self._index))
        if self._device == "cuda":
            return [cuda, CPU]
        return [(TENSORRT, tensorrt_options(part, self._cache, self._index)), cuda, CPU]

    def put(self, name: str, array: NDArray[Any]) -> Value:  # noqa: ARG002 - values are new each time
        if not self.on_device:
            return array
        with _translated():
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._memory, self._index)

    def get(self, value: Value) -> NDArray[Any]:
        return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())

    def free_memory(self) -> int | None:
        return assumed_free(gpus()[self._index].memory) if self._device != "cpu" and gpus() else None


def cuda_options(part: Part, index: int = 0) -> dict[str, str]:
    """Of the CUDA provider. An exhaustive search for convolutions would run again for every shape."""
    return {
        "device_id": str(index),
        "use_tf32": "0" if part.exact else "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",  # by default it doubles, and holds what nobody uses
    }


def tensorrt_options(part: Part, cache: Path, index: int = 0) -> dict[str, Any]:
    """Of the TensorRT provider: explicit shapes, and a cache for each network.

    ONNX Runtime names engines by the names in a network and not by its weights, and by the GPU's compute capability and
    not by its model: two networks of one form, or an H100 and an H200, would take each other's.

    `trt_fp16_enable` is never set: ONNX Runtime would then not ask for a strongly typed network, and coordinates, which
    these networks keep in float32, would become half.
    """
    gpu = re.sub(r"\W+", "-", gpus()[index].name) if gpus() else "no-gpu"
    timings = cache / "onnxruntime" / gpu
    engines = timings / sha256_of(part.path)[:16]
    engines.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "device_id": str(index),
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(timings),
    }
    if part.profiles:
        for place, kind in enumerate(("min", "opt", "max")):
            shapes = whole_range(part.profiles)
            text = (f"{name}:{'x'.join(map(str, shape[place]))}" for name, shape in shapes.items())
            options[f"trt_profile_{kind}_shapes"] = ",".join(text)
    return options


@cache
def preload() -> None:
    """CUDA's libraries from the packages of the `cuda` extra, or torch's. Its complaints go nowhere: see `doctor`."""
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls(directory="")


def provider_trouble(provider: str, index: int = 0) -> str | None:
    """Why a provider is not available, None where it runs the smallest network. ONNX Runtime lists it anywhere."""
    preload()
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # of its fallback
            session = OrtSession(_SAMPLE, [(provider, {"device_id": str(index)}), CPU], _SILENT)
            if session.inner.get_providers()[0] != provider:
                return "ONNX Runtime fell back to the CPU"
            session.run({"pixels": np.zeros((1, 8, 8, 3), np.uint8)})  # it may have no kernels for this GPU
    except EngineError as error:
        return str(error)
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    return None


@contextlib.contextmanager
def _translated() -> Any:
    """ONNX Runtime's errors as ours."""
    try:
        yield
    except Exception as error:
        raise engine_failure(f"ONNX Runtime: {error}") from error
