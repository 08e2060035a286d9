"""What is to be shown, in which order, and what a part is given to work with.

The proofs come first, then the goals, then the rest: a run that is cut short has shown what matters most.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gpu.bare import Missing
from gpu.rows import END, Row

ENGINES = ("torch", "cuda", "tensorrt", "ort-tensorrt")  # of a GPU, as `--device` names them
ON_CPU = ("torch", "cpu")
BASELINE = "amp"  # the published way: torch AMP, cuDNN on
FUSED = "torch-fused"  # torch, matching by kernels of Triton
ALWAYS = ("", BASELINE, FUSED)  # not asked for among the engines; what they lack, their rows say
NANO_MODEL = "dedode-nano"
BEGUN = "begun"  # what a case is announced by, before its row
LOST = 70  # exit status: nothing works any more on the GPU in this process; another one goes on
_LOST = (  # as libraries say it
    *("illegal memory access", "illegal address", "illegal instruction", "misaligned address", "launch failure"),
    *("launchfailure", "illegaladdress", "device-side assert", "hardware stack error"),
)
ROOT = Path(__file__).resolve().parents[2]
NONE = ""  # no engine, or no model
FIRST, OTHERS, NANO, NO_MODEL = "first", "others", "nano", "none"


@dataclass(frozen=True)
class Settings:
    """What a file of results was made with; another set of them is another file."""

    device: str  # of torch, cuda or cpu
    quick: bool
    models: tuple[str, ...]  # the first is the one that goals are set for
    sizes: tuple[int, ...]  # of square images, pixels; the last is the one that goals are set for
    batches: tuple[int, ...]
    keypoints: tuple[int, ...]  # of an image, of matching
    max_keypoints: int  # of an image, of extraction
    seconds: float  # of a measurement

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Settings":
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Equal to what comes back from a file."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True)
class Part:
    """One kind of proof or measurement."""

    name: str
    module: str  # of this package
    engines: tuple[str, ...] = (NONE,)  # those that it is for; `ENGINES` are all
    models: str = NO_MODEL
    minutes: float = 2.0  # a task may take

    def engines_on(self, device: str) -> list[str]:
        """On the CPU the GPU's are torch on the CPU, and ONNX Runtime where that is one of them."""
        if device == "cuda":
            return list(self.engines)
        stand_for = {"torch": ["torch"], "cuda": ["cpu"], "tensorrt": [], "ort-tensorrt": []}
        return [one for engine in self.engines for one in stand_for.get(engine, [engine])]

    @property
    def function(self) -> str:
        return self.name.replace("-", "_")


PARTS = (
    Part("engines", "engines"),
    Part("ceiling", "speed"),
    Part("matching-parity", "proofs", (*ENGINES, FUSED)),
    Part("tests", "drills", minutes=5),
    Part("bitwise", "proofs", ENGINES, FIRST, 6),
    Part("features-parity", "proofs", ENGINES, FIRST, 6),
    Part("time-by-part", "speed", ENGINES, FIRST, 6),
    Part("speed", "speed", (BASELINE, *ENGINES), FIRST, 8),
    Part("matching-speed", "speed", (*ENGINES, FUSED), minutes=4),
    Part("builds", "engines", ENGINES, FIRST, 6),
    Part("memory", "drills", ENGINES, FIRST, 4),
    Part("redo", "drills", ENGINES, NANO),
    Part("jpegs", "whole", ENGINES, FIRST, 6),
    Part("nodes", "engines", ("cuda", "ort-tensorrt"), FIRST, 4),
    Part("bitwise", "proofs", ENGINES, OTHERS, 6),
    Part("features-parity", "proofs", ENGINES, OTHERS, 6),
    Part("speed", "speed", (BASELINE, *ENGINES), OTHERS, 6),
    Part("sanitizer", "drills", ("torch", "cuda", "tensorrt"), NANO, 6),
)


@dataclass(frozen=True)
class Task:
    """A part with an engine and a model: a process."""

    part: Part
    engine: str
    model: str

    @property
    def head(self) -> Row:
        """What all its rows begin with."""
        return {"part": self.part.name, "engine": self.engine, "model": self.model}

    @property
    def end(self) -> tuple[str, ...]:
        """The key of the row that closes it."""
        return self.part.name, self.engine, self.model, END


def tasks(settings: Settings, present: Callable[[str], bool]) -> Iterator[Task]:
    """Every task of a run, in order, with the engines that are `present`."""
    main, *others = settings.models
    chosen = {FIRST: [main], OTHERS: others, NANO: [NANO_MODEL], NO_MODEL: [NONE]}
    for part in PARTS:
        for model in chosen[part.models]:
            for engine in part.engines_on(settings.device):
                if engine in ALWAYS or present(engine):
                    yield Task(part, engine, model)


class Failed(Exception):
    """A proof that does not hold; what was seen goes into its row."""

    def __init__(self, why: str, **seen: Any) -> None:
        super().__init__(why)
        self.seen = seen


class LeftOut(Exception):
    """A case that this machine cannot show; the message says why."""


@dataclass
class Work:
    """What a part is given: it calls `case` for each row that it wants."""

    settings: Settings
    engine: str
    model: str
    done: set[str]  # cases of which a row stands
    emit: Callable[[Row], None]
    ceiling: dict[str, float] = field(default_factory=dict)  # of this machine, empty where it is not measured

    @property
    def quick(self) -> bool:
        return self.settings.quick

    @property
    def cuda(self) -> bool:
        """Whether a GPU is what is tested."""
        return self.settings.device == "cuda"

    def case(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """A row, unless it stands already. A case that fails is a finding, not the end of its task."""
        if name in self.done:
            return
        self.emit({BEGUN: name})
        row: Row = {"case": name, "status": "ok"}
        try:
            row |= measure()
        except Failed as failure:
            row |= {"status": "failed", "why": str(failure), **failure.seen}
        except (LeftOut, Missing) as reason:
            row |= {"status": "left out", "why": str(reason)}
        except ModuleNotFoundError as error:
            row |= {"status": "left out", "why": f"{error.name} is not installed"}
        except Exception as error:  # noqa: BLE001 - engines raise what they like
            row |= {"status": "failed", "why": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"}
        self.emit(row)
        if row["status"] == "failed" and any(sign in row["why"].lower() for sign in _LOST):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(LOST)  # not even this process's end would work


def perform(part: str, work: Work) -> None:
    """Runs a part; heavy packages are imported only here."""
    chosen = next(one for one in PARTS if one.name == part)
    run = getattr(importlib.import_module(f"gpu.{chosen.module}"), chosen.function)
    try:
        run(work)
    except Exception as error:  # noqa: BLE001 - what a part needs before its first case
        traceback.print_exc()
        work.case("preparation", partial(_again, error))


def _again(error: Exception) -> Mapping[str, Any]:
    raise error
