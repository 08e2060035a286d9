"""What is to be shown, in which order, and what a part is given to work with.

The proofs come first, then the goals, then the rest: a run that is cut short has shown what matters most.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu.bare import Missing
from gpu.rows import END, Row

ENGINES = ("torch", "cuda", "tensorrt", "ort-tensorrt")  # of a GPU, as `--device` names them
ON_CPU = ("torch", "cpu")
BASELINE = "amp"  # the published way: torch AMP, cuDNN on
FUSED = "torch-fused"  # torch, matching by a Triton kernel
NANO_MODEL = "dedode-nano"
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
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})

    def as_json(self) -> dict[str, Any]:
        """Equal to what comes back from a file."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True)
class Part:
    """One kind of proof or measurement."""

    name: str
    module: str  # of this package
    engines: tuple[str, ...] = (NONE,)  # those that it is for; `ENGINES` stands for all that are here
    models: str = NO_MODEL
    minutes: float = 2.0  # a task may take

    @property
    def function(self) -> str:
        return self.name.replace("-", "_")


PARTS = (
    Part("engines", "engines"),
    Part("ceiling", "speed"),
    Part("matching-parity", "proofs", ENGINES),
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
    here = ENGINES if settings.device == "cuda" else ON_CPU
    main, *others = settings.models
    chosen = {FIRST: [main], OTHERS: others, NANO: [NANO_MODEL], NO_MODEL: [NONE]}
    for part in PARTS:
        engines = here if part.engines == ENGINES else part.engines
        for model in chosen[part.models]:
            for engine in engines:
                if engine in (NONE, BASELINE, FUSED) or (engine in here and present(engine)):
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


def perform(part: str, work: Work) -> None:
    """Runs a part; heavy packages are imported only here."""
    chosen = next(one for one in PARTS if one.name == part)
    getattr(importlib.import_module(f"gpu.{chosen.module}"), chosen.function)(work)
