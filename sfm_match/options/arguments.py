"""The arguments of the Python functions, checked as options are: by their annotations, with the same one line."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from sfm_match.errors import UsageError, found
from sfm_match.options.base import as_type, flag

P = ParamSpec("P")
R = TypeVar("R")
_PLAIN = (bool, int, float, str, Path)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is called with what its annotations say: any path as `Path`, numpy's numbers as Python's.

    Options by name, `**keywords`, are the function's own business.

    Raises:
        UsageError: of the function: an argument is missing, not known, or of another type.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(f"{function.__name__.strip('_')}: {error}") from None
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints and signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = _fitting(value, hints[name], flag(name))
        return function(*bound.args, **bound.kwargs)

    return call


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def _fitting(value: Any, hint: Any, where: str) -> Any:
    """The value as one of the types that an annotation joins."""
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    if value is None and NoneType in kinds:
        return None
    if {str, Path} <= kinds:
        kinds -= {str}
    reasons = []
    for kind in sorted(kinds - {NoneType}, key=lambda kind: kind not in _PLAIN):
        try:
            return _as_kind(value, kind, where)
        except UsageError as error:
            reasons.append(error)
    raise reasons[-1]


def _as_kind(value: Any, kind: Any, where: str) -> Any:
    if kind in _PLAIN:
        return as_type(value, kind, where, numbers_as_text=False)
    origin, of = get_origin(kind), get_args(kind)
    if origin is Callable or kind is Callable:
        fits, name = callable(value), "a function"
    elif origin in (Sequence, tuple):
        fits, name = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping), "a list"
        if fits:
            items = tuple(_fitting(one, of[0], where) for one in value)
            if origin is Sequence or len(items) == len(of):
                return items
            fits, name = False, f"{len(of)} values"
    else:
        fits, name = not isinstance(kind, type) or isinstance(value, kind), getattr(kind, "__name__", "")
    if not fits:
        raise UsageError(f"{where}: expected {name}, found {found(value)}")
    return value
