"""`export onnx`: a model of the registry to its files, each with its parity record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.half_precision import halved
from exports.networks import Matcher
from exports.onnx_export import (
    Shapes,
    export_dense_detector,
    export_descriptor,
    export_detector,
    export_end_to_end,
    export_matcher,
)
from exports.parity import Parity, check_parity
from exports.registry import FAMILY, ModelSpec
from exports.weights import Networks, load_networks, random_networks

SEPARATE = ("detector", "descriptor", "matcher")
END_TO_END = ("end2end",)
TRACED = 112  # pixels at least, of files of any size


@dataclass(frozen=True)
class Exported:
    """One file. The matcher has no weights, and no record."""

    path: Path
    parity: Parity | None


def export_onnx(
    model: str,
    out: Path,
    shapes: Shapes,
    *,
    parts: Sequence[str] = SEPARATE,
    half: bool = False,
    weights: list[Path] | None = None,
    random_weights: bool = False,
    overwrite: bool = False,
) -> Iterator[Exported]:
    """Writes a model's files, one after the other.

    Args:
        model: a name of `FAMILY`.
        out: their folder.
        shapes: sizes and counts.
        half: half-precision weights; softmax, top-k, coordinates and unit length stay float32.
        parts: which files, of `SEPARATE`; or `END_TO_END`, one file from images to matches.
        weights: checkpoints, told apart by their content.
        random_weights: seeded weights in place of checkpoints, for shape checks.
        overwrite: replace files that are there.

    Raises:
        ValueError: an unknown model, sizes or counts that it does not take, weights that do not fit, or a file that is
            there.
    """
    spec, networks, source = _networks(model, weights, random_weights=random_weights, shapes=shapes)
    halves = _halved(networks) if half else None
    used = halves or networks
    matcher = Matcher(threshold=spec.match_threshold)
    where = "" if shapes.dynamic_size else f"_{shapes.size[0]}x{shapes.size[1]}"
    end = "_fp16.onnx" if half else ".onnx"

    def checked(path: Path, kind: str) -> Exported:
        record = check_parity(
            path,
            kind,
            networks,
            shapes,
            half=halves,
            weights=source,
            divisor=spec.divisor,
            match_threshold=spec.match_threshold,
        )
        return Exported(path, record)

    count = shapes.num_keypoints
    files = {
        "detector": out / f"{model}_detector{where}_{count}{end}",
        "descriptor": out / f"{model}_descriptor{where}{end}",
        "matcher": out / f"{model}_matcher.onnx",
        "end2end": out / f"{model}_end2end{where}_{count}{end}",
    }
    there = next((files[part] for part in parts if files[part].exists()), None)
    if there is not None and not overwrite:
        raise ValueError(f"--out {out}: {there.name} is there; add --overwrite to replace it, or choose another folder")
    for part in parts:
        path = files[part]
        if part == "detector":
            export_detector(used.detector, path, shapes)
            yield checked(path, "detector")
        elif part == "descriptor":
            export_descriptor(used.descriptor, path, shapes)
            yield checked(path, "descriptor")
        elif part == "matcher":
            export_matcher(matcher, spec.dimension, path)
            yield Exported(path, None)
        else:
            export_end_to_end(used, matcher, path, shapes)
            yield checked(path, "end to end")


def export_pipeline(
    model: str,
    detector: Path,
    descriptor: Path,
    *,
    half: bool = False,
    weights: list[Path] | None = None,
    random_weights: bool = False,
) -> list[Exported]:
    """Writes the two files that the pipeline runs: any batch, sizes as it pads them, logits in place of keypoints.

    Args:
        model: a name of `FAMILY`.
        detector, descriptor: the files to write.
        half: half-precision weights; inputs and outputs stay float32.
        weights, random_weights: as in `export_onnx`.

    Raises:
        ValueError: an unknown model, weights that do not fit.
    """
    shapes = padded_size(model)
    spec, networks, source = _networks(model, weights, random_weights=random_weights, shapes=shapes)
    halves = _halved(networks) if half else None
    used = halves or networks
    export_dense_detector(used.detector, detector, shapes)
    export_descriptor(used.descriptor, descriptor, shapes)
    return [
        Exported(path, check_parity(path, kind, networks, shapes, half=halves, weights=source, divisor=spec.divisor))
        for path, kind in ((detector, "dense detector"), (descriptor, "descriptor"))
    ]


def _halved(networks: Networks) -> Networks:
    return Networks(halved(networks.detector), halved(networks.descriptor))


def any_size(model: str, num_keypoints: int = Shapes.num_keypoints) -> Shapes:
    """Of files for any size and batch.

    Raises:
        ValueError: an unknown model.
    """
    return _free(_spec(model).divisor, num_keypoints)


def padded_size(model: str) -> Shapes:
    """Of files for any batch, and the sizes to which the pipeline pads images: multiples of the model's alignment.

    Raises:
        ValueError: an unknown model.
    """
    return _free(_spec(model).alignment)


def _free(multiple: int, num_keypoints: int = Shapes.num_keypoints) -> Shapes:
    side = -(-TRACED // multiple) * multiple
    return Shapes((side, 2 * side), 2, True, True, num_keypoints, multiple)


def _spec(model: str) -> ModelSpec:
    if model not in FAMILY:
        raise ValueError(f"--model {model}: accepted are {', '.join(FAMILY)}")
    return FAMILY[model]


def _networks(
    model: str, weights: list[Path] | None, *, random_weights: bool, shapes: Shapes
) -> tuple[ModelSpec, Networks, str]:
    """The networks, and in words where their weights come from. Raises ValueError for what does not fit together."""
    spec = _spec(model)
    if random_weights == bool(weights):
        raise ValueError(f"--model {model}: accepted are either --weights FILE (once a network) or --random-weights")
    shapes.validate(spec.divisor)
    if not weights:
        return spec, random_networks(spec), "random, seed 0"
    return spec, load_networks(spec, weights), ", ".join(path.name for path in weights)
