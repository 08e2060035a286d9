"""ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from sfm_match.errors import SfmMatchError
from sfm_match.runtime import Arrays, Provider

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_ERRORS_ONLY = 3


class EngineError(SfmMatchError):
    """The engine refused the network."""


class OrtSession:
    """An ONNX file under ONNX Runtime, on the first of the providers that it can have."""

    def __init__(self, path: Path, providers: Sequence[Provider] = (CPU,)) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise EngineError(f"{path}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        return f"ONNX Runtime {onnxruntime.__version__}, {self._session.get_providers()[0]}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
