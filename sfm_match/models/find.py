"""From a model's name, and where its weights come from, to its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exports.registry import FAMILY
from sfm_match.errors import NothingDone
from sfm_match.models.described import ModelDescription, description_of, read_description
from sfm_match.models.model import (
    BUILT_IN,
    DESCRIPTOR,
    DETECTOR,
    MatchDefaults,
    Model,
    Weights,
    check_name,
    half_name,
    read_manifest,
)
from sfm_match.models.prepared import prepared_model
from sfm_match.store.shard import sha256_of


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
        return prepared_model(name, weights or Weights(), half=half)
    folder, manifest = BUILT_IN[name], read_manifest(name)
    digests = manifest["sha256_fp16" if half else "sha256"]
    for file, expected in digests.items():
        path = folder / file
        if not path.is_file() or sha256_of(path) != expected:
            raise NothingDone(f"{path}: missing or damaged; install sfm-match again")
    return Model(
        name=name,
        spec=FAMILY[name],
        source={"version": manifest["version"], **digests},
        detector=folder / (half_name(DETECTOR) if half else DETECTOR),
        descriptor=folder / (half_name(DESCRIPTOR) if half else DESCRIPTOR),
        half=half,
        weights=tuple(sorted(folder.glob("*.safetensors"))),
    )


def match_defaults(name: str) -> MatchDefaults:
    """Of a model, without its weights.

    Args:
        name: of the family, or a folder with a description.

    Raises:
        UsageError: no model has this name, and no folder; or a wrong description.
    """
    if name not in FAMILY and Path(name).is_dir():
        return _of_description(read_description(Path(name)))
    check_name(name, or_folder=True)
    spec = FAMILY[name]
    return MatchDefaults(spec.match_threshold, spec.inverse_temperature, spec.dimension, spec.lightglue)


def recorded_match_defaults(inputs: Mapping[str, Any]) -> MatchDefaults:
    """The same of the model that made features, by the inputs of their fingerprint: its folder may be gone."""
    if "description" in inputs:
        return _of_description(description_of(inputs["description"], "the features' description"))
    return match_defaults(inputs["model"])


def _of_description(found: ModelDescription) -> MatchDefaults:
    return MatchDefaults(found.match_threshold, found.inverse_temperature, found.dimension)
