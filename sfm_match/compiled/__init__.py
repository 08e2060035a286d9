"""What is compiled where the package is installed, if a compiler is there; else its callers do the same with numpy.

It is loaded with ctypes: other threads run meanwhile, and no headers of Python are needed.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

_LAYOUT = 1  # of the structures; as in processors.c


@cache
def _library() -> ctypes.CDLL | None:
    """None if nothing was compiled, or for another machine or other structures, as before an update of the sources."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.exists():
            try:
                found = ctypes.CDLL(str(path))
                found.kernel_layout.restype, found.kernel_layout.argtypes = ctypes.c_size_t, []
                found.kernel_name.restype, found.kernel_name.argtypes = ctypes.c_char_p, [ctypes.c_size_t]
            except (OSError, AttributeError):  # of another machine or C library; without these functions
                return None
            return found if found.kernel_layout() == _LAYOUT else None
    return None


@cache
def kernels() -> dict[str, int]:
    """Numbers of the kernels that this processor can run, by name, the fastest first. None if nothing was compiled."""
    compiled, found = _library(), dict[str, int]()
    number = 0
    while compiled and (name := compiled.kernel_name(number)) is not None:
        if name:
            found[name.decode()] = number
        number += 1
    return found


def fastest() -> int | None:
    """The number of the fastest kernel that this processor can run; None if nothing was compiled."""
    return next(iter(kernels().values()), None)


@cache
def function(name: str, problem: type[ctypes.Structure], result: type[Any] | None) -> Callable[..., Any]:
    """What is called with the number of a kernel and `ctypes.byref` of a problem, where there are kernels.

    Args:
        name: in the C file.
        problem: the structure that it takes.
        result: a type of ctypes, or None.
    """
    compiled = _library()
    if compiled is None:
        raise RuntimeError("nothing was compiled")
    found = compiled[name]
    found.restype, found.argtypes = result, [ctypes.c_size_t, ctypes.POINTER(problem)]
    return found
