"""Stand-ins for packages that a bare machine lacks, so that what needs none of them can be imported there.

sfm_match imports h5py, cv2, tqdm and others at the head of modules whose other half needs numpy alone. A stand-in can
be imported and named in annotations; calling anything of it raises `Missing`, which a task reports as left out.
"""

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

PACKAGES = ("h5py", "cv2", "tqdm", "pooch", "requests", "threadpoolctl", "filelock", "safetensors", "onnxruntime")
_SAFE = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


class Missing(ImportError):
    """A package that this machine lacks."""


class _Absent:
    """Any name of a package that is not there."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> "_Absent":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(self._package)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise Missing(f"{self._package} is not installed", name=self._package)


class _StandIn(ModuleType):
    """A package that is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(self.__name__.partition(".")[0])


def missing(packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Those that are not installed; a stand-in is not."""
    return [
        name
        for name in packages
        if isinstance(sys.modules.get(name), _StandIn) or (name not in sys.modules and not _found(name))
    ]


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of what it is within
        return False


def require(*packages: str) -> None:
    """Raises Missing where one of them is not installed."""
    absent = missing(packages)
    if absent:
        raise Missing(f"{', '.join(absent)} not installed", name=absent[0])


def stand_in() -> list[str]:
    """Puts stand-ins in the place of what is missing, and returns their names."""
    absent = missing()
    for name in absent:
        sys.modules[name] = _StandIn(name)
    if "safetensors" in absent:  # a plain format: nano's own weights need no package
        module = _StandIn("safetensors.torch")
        module.load_file = load_safetensors  # type: ignore[attr-defined]
        sys.modules["safetensors.torch"] = sys.modules["safetensors"].torch = module  # type: ignore[attr-defined]
    return absent


def load_safetensors(path: Path | str) -> dict[str, Any]:
    """Tensors by name: 8 bytes of length, a JSON head, then the tensors."""
    import torch

    content = Path(path).read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    body = content[8 + size :]
    tensors = {}
    for name, facts in head.items():
        if name != "__metadata__":
            start, end = facts["data_offsets"]
            array = np.frombuffer(body[start:end], _SAFE[facts["dtype"]]).reshape(facts["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors
