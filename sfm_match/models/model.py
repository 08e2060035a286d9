"""What a model is: its files, the settings that belong to it, and where its weights come from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.registry import FAMILY, ModelSpec
from sfm_match.errors import UsageError, nearest

_HERE = Path(__file__).parent
BUILT_IN = {name: _HERE / name.replace("-", "_") for name, spec in FAMILY.items() if spec.packaged}
_IN_HISTORY = {f"dedode-nano-v{version}": "dedode-nano" for version in (1, 2, 3)}  # earlier weights -> the newest
DETECTOR, DESCRIPTOR = "detector.onnx", "descriptor.onnx"


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from. Without any choice: from the package, or as downloaded."""

    files: tuple[Path, ...] = ()  # checkpoints, told apart by their content
    folder: Path | None = None  # of downloaded weights; None: see `zoo.weights_dir`
    random: bool = False  # seeded ones, for checks of shapes and memory

    @classmethod
    def named(cls, files: str | None, folder: Path | None, random: bool) -> "Weights":
        """From the options: `files` is FILE[,FILE]."""
        return cls(tuple(map(Path, files.split(","))) if files else (), folder, random)

    def __post_init__(self) -> None:
        if self.files and self.random:
            raise UsageError("--random-weights cannot be joined with --weights")


@dataclass(frozen=True)
class Model:
    """A detector and a descriptor, as ONNX files."""

    name: str
    spec: ModelSpec
    source: dict[str, str]  # what its weights are told apart by
    detector: Path  # image -> logits
    descriptor: Path  # image, keypoints -> descriptors
    half: bool  # the files' weights are half precision
    weights: tuple[Path, ...]  # checkpoints, for torch; none: random

    @property
    def divisor(self) -> int:
        """The pipeline pads image sides to multiples of so many pixels."""
        return self.spec.alignment

    def inputs(self) -> dict[str, str]:
        """What a result must be told apart by."""
        return {"model": self.name, **self.source}


@dataclass(frozen=True)
class MatchDefaults:
    """How the features of a model are matched where no option says otherwise."""

    threshold: float  # least dual-softmax probability
    inverse_temperature: float
    dimension: int  # of a descriptor
    lightglue: str = ""  # the published LightGlue for them, of `exports.registry.LIGHTGLUE`


def half_name(file: str) -> str:
    """`detector.onnx` -> `detector_fp16.onnx`."""
    stem, suffix = file.rsplit(".", 1)
    return f"{stem}_fp16.{suffix}"


def check_name(name: str, option: str = "--model", *, or_folder: bool = False) -> None:
    """Raises UsageError where no model has this name.

    Args:
        name: as given.
        option: what the message says was given.
        or_folder: whether a folder would have been accepted, too.
    """
    if name in _IN_HISTORY:
        raise UsageError(
            f"{option} {name}: earlier weights, in the project's history only (the model card says where); "
            f"accepted is {_IN_HISTORY[name]}, their newest version"
        )
    if name not in FAMILY:
        also = ", or a folder with an ONNX file and its model.toml" if or_folder else ""
        raise UsageError(f"{option} {name}: accepted are {', '.join(FAMILY)}{also}{nearest(name, FAMILY)}")


def read_manifest(name: str) -> dict[str, Any]:
    """Of a built-in model: the version of its weights, and the sha256 of its files."""
    return dict(json.loads((BUILT_IN[name] / "manifest.json").read_text(encoding="utf-8")))
