"""The zoo: a model's name to its files and the settings that belong to it."""

import json
from dataclasses import dataclass
from pathlib import Path

from sfm_match.errors import NothingDone, UsageError, nearest
from sfm_match.store.shard import sha256_of

_HERE = Path(__file__).parent
BUILT_IN = {"dedode-nano": _HERE / "dedode_nano"}


@dataclass(frozen=True)
class Model:
    """A detector and a descriptor, as ONNX files."""

    name: str
    version: str
    detector: Path  # image -> logits
    descriptor: Path  # image, keypoints -> descriptors
    sha256: dict[str, str]  # of the two files
    divisor: int  # image sides are multiples of it, pixels
    dimension: int  # of a descriptor
    match_threshold: float  # least dual-softmax probability that pays for this model
    nms_radius: int  # pixels; a keypoint is the strongest within this distance (in rows and in columns)

    def facts(self) -> dict[str, str]:
        """What a result must be told apart by."""
        return {"model": self.name, "version": self.version, **self.sha256}


def find_model(name: str) -> Model:
    """Looks a model up and checks its files.

    Raises:
        UsageError: no model has this name.
        NothingDone: its files are missing or not the ones the manifest names.
    """
    if name not in BUILT_IN:
        raise UsageError(f"--model {name}: accepted are {', '.join(BUILT_IN)}{nearest(name, BUILT_IN)}")
    folder = BUILT_IN[name]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for file, expected in manifest["sha256"].items():
        path = folder / file
        if not path.is_file() or sha256_of(path) != expected:
            raise NothingDone(f"{path}: missing or damaged; install sfm-match again")
    return Model(
        name=name,
        version=manifest["version"],
        detector=folder / "detector.onnx",
        descriptor=folder / "descriptor.onnx",
        sha256=manifest["sha256"],
        divisor=manifest["divisor"],
        dimension=manifest["dimension"],
        match_threshold=manifest["match_threshold"],
        nms_radius=manifest["nms_radius"],
    )
