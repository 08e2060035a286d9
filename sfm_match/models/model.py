"""What a model is: its files, the settings that belong to it, and where its weights come from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.config import FAMILY
from sfm_match.errors import UsageError, nearest

_HERE = Path(__file__).parent
_VERSIONS = ("dedode-nano", "dedode-nano-v3", "dedode-nano-v2", "dedode-nano-v1")
BUILT_IN = {name: _HERE / name.replace("-", "_") for name in _VERSIONS}
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
            raise UsageError("--random-weights stands alone: accepted are --weights FILE[,FILE] or --random-weights")


@dataclass(frozen=True)
class Model:
    """A detector and a descriptor, as ONNX files."""

    name: str
    source: dict[str, str]  # what its weights are told apart by
    detector: Path  # image -> logits
    descriptor: Path  # image, keypoints -> descriptors
    divisor: int  # image sides are padded to multiples of it, pixels
    dimension: int  # of a descriptor
    match_threshold: float  # least dual-softmax probability that pays for this model
    pixels_per_keypoint: int  # network pixels; an image has no more keypoints that can be told apart; 0: no limit
    least_contrast: float  # of a keypoint's logit over the lowest within `CONTRAST_RADIUS`, for flat ground; 0: any
    nms_radius: int  # pixels; a keypoint is the strongest within this distance (in rows and in columns)
    published: bool  # keypoints are chosen as the published DeDoDe chooses them
    cpu_batch: int  # images a call; more gains nothing on a CPU
    half: bool  # the files' weights are half precision
    weights: tuple[Path, ...]  # checkpoints, for torch; none: random

    def facts(self) -> dict[str, str]:
        """What a result must be told apart by."""
        return {"model": self.name, **self.source}


def half_name(file: str) -> str:
    """`detector.onnx` -> `detector_fp16.onnx`."""
    stem, suffix = file.rsplit(".", 1)
    return f"{stem}_fp16.{suffix}"


def check_name(name: str) -> None:
    """Raises UsageError where no model has this name."""
    if name not in FAMILY:
        raise UsageError(f"--model {name}: accepted are {', '.join(FAMILY)}{nearest(name, FAMILY)}")


def match_threshold(name: str) -> float:
    """Of a model, without looking at its files."""
    check_name(name)
    return float(read_manifest(name)["match_threshold"]) if name in BUILT_IN else FAMILY[name].match_threshold


def read_manifest(name: str) -> dict[str, Any]:
    """Of a built-in model."""
    return dict(json.loads((BUILT_IN[name] / "manifest.json").read_text(encoding="utf-8")))
