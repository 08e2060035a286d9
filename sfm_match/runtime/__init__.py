"""Engines behind one small protocol, chosen by name or `auto`.

A `Runtime` is an engine on a device. It loads `Part`s into `Session`s, which take and give values that live on the
device; `put` and `get` carry arrays there and back. On the CPU values are plain arrays. Two threads may use a runtime
at once, each with values of its own (`workers`), so that one copies while the other computes.
"""

from sfm_match.runtime.create import create_runtime, resolve_precision
from sfm_match.runtime.devices import Choice, choose, driver_present
from sfm_match.runtime.exported import refuse_failed_export
from sfm_match.runtime.protocol import (
    GRAPHS,
    Arrays,
    EngineError,
    OutOfMemory,
    Part,
    Provider,
    Runtime,
    Session,
    Shape,
    Shapes,
    Value,
    engine_failure,
)

__all__ = [
    "GRAPHS",
    "Arrays",
    "Choice",
    "EngineError",
    "OutOfMemory",
    "Part",
    "Provider",
    "Runtime",
    "Session",
    "Shape",
    "Shapes",
    "Value",
    "choose",
    "create_runtime",
    "driver_present",
    "engine_failure",
    "refuse_failed_export",
    "resolve_precision",
]
