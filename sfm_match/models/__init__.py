"""A model's name, and where its weights come from, to its files and the settings that belong to it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.config import FAMILY
from sfm_match.errors import NothingDone, UsageError, nearest
from sfm_match.store.shard import sha256_of

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


def find_model(name: str, weights: Weights | None = None, *, half: bool = False) -> Model:
    """Looks a model up and checks its files. Published ones are turned into ONNX files at first use.

    Args:
        name: of the family.
        weights: where they come from.
        half: the files with half-precision weights, for GPUs.

    Raises:
        UsageError: no model has this name.
        NothingDone: its files are missing, or not the ones on record, or no torch is there to convert them.
    """
    check_name(name)
    if name not in BUILT_IN or (weights and (weights.files or weights.random)):
        from sfm_match.models.prepared import prepared_model

        return prepared_model(name, weights or Weights(), half=half)
    folder, manifest = BUILT_IN[name], _manifest(name)
    digests = manifest["sha256_fp16" if half else "sha256"]
    for file, expected in digests.items():
        path = folder / file
        if not path.is_file() or sha256_of(path) != expected:
            raise NothingDone(f"{path}: missing or damaged; install sfm-match again")
    return Model(
        name=name,
        source={"version": manifest["version"], **digests},
        detector=folder / (half_name(DETECTOR) if half else DETECTOR),
        descriptor=folder / (half_name(DESCRIPTOR) if half else DESCRIPTOR),
        divisor=manifest["divisor"],
        dimension=manifest["dimension"],
        match_threshold=manifest["match_threshold"],
        pixels_per_keypoint=manifest["pixels_per_keypoint"],
        least_contrast=manifest["least_contrast"],
        nms_radius=manifest["nms_radius"],
        published=False,
        cpu_batch=4,
        half=half,
        weights=tuple(sorted(folder.glob("*.safetensors"))),
    )


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
    return float(_manifest(name)["match_threshold"]) if name in BUILT_IN else FAMILY[name].match_threshold


def _manifest(name: str) -> dict[str, Any]:
    return dict(json.loads((BUILT_IN[name] / "manifest.json").read_text(encoding="utf-8")))
