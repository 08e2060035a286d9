"""A model from elsewhere: a folder with one ONNX file, and a TOML file that says how it is used."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from sfm_match.errors import NothingDone, UsageError, nearest, quoted
from sfm_match.options.base import Bounds, as_type, read_limited, require
from sfm_match.store.shard import sha256_of

FILE = "model.toml"
_LARGEST = 1 << 20  # bytes of it
_MOST = {"divisor": Bounds(1, 4096), "dimension": Bounds(1, 65_536)}
PIXELS, NORMALISED = "pixels", "normalised"
_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_ACCEPTED = {"coordinates": (PIXELS, NORMALISED), "first_pixel": (0.0, 0.5), "channels": tuple(_CHANNELS)}


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The content of `model.toml`. Names are those of inputs and outputs of the ONNX file.

    Outputs are float32, with the same number K of rows for every image of a batch: keypoints (B, K, 2), x and y of the
    padded image, scores (B, K), and descriptors (B, K, D). A row without a keypoint has a score of 0 or less.
    """

    file: str  # ONNX, in the folder of the TOML
    dimension: int  # D
    match_threshold: float  # least dual-softmax probability of a match
    inverse_temperature: float = 20.0  # of the dual softmax
    input: str = "image"  # (B, C, H, W) float32
    channels: str = "rgb"
    mean: tuple[float, ...] = (0.0,)  # of each channel, or of all; what enters is (value / 255 - mean) / std
    std: tuple[float, ...] = (1.0,)
    divisor: int = 1  # the sides of padded images are multiples of it, pixels
    keypoints: str = "keypoints"
    scores: str = "scores"
    descriptors: str = "descriptors"
    coordinates: str  # of keypoints: pixels, or -1 to 1 over the padded image
    # the centre of the top-left pixel. Of normalised coordinates, 0.5: -1 and 1 are the outer edges of the image;
    # 0: they are the centres of its first and last pixels (`align_corners=True`)
    first_pixel: float

    @property
    def depth(self) -> int:
        """Channels of the input."""
        return _CHANNELS[self.channels]

    def as_json(self) -> dict[str, Any]:
        """As JSON gives it back: what features are told apart by."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class DescribedModel:
    """A `features.extractor.FeatureModel`."""

    path: Path  # ONNX
    digests: dict[str, str]  # file -> sha256, of the ONNX file and of what lies beside it under a longer name
    description: ModelDescription
    single: bool  # it takes one image at a time

    @property
    def divisor(self) -> int:
        return self.description.divisor

    def inputs(self) -> dict[str, Any]:
        """What a result must be told apart by."""
        return {"model": self.path.stem, "files": self.digests, "description": self.description.as_json()}


def described_model(folder: Path) -> DescribedModel:
    """Reads the description of a folder, and checks it against the ONNX file.

    Raises:
        UsageError: no description, a field that is wrong, or a file of other inputs or outputs.
        NothingDone: the ONNX file is missing, or ONNX Runtime cannot load it.
    """
    description = read_description(folder)
    path = folder / description.file
    if not path.is_file():
        raise NothingDone(f"{folder / FILE}: file = {description.file!r}: no such file in {folder}")
    # weights of large files lie beside them, as FILE.data or FILE_data
    digests = {one.name: sha256_of(one) for one in sorted(folder.glob(f"{description.file}*")) if one.is_file()}
    signature, outputs = _signature(path, digests[path.name])
    _check_file(folder / FILE, description, signature, outputs)
    return DescribedModel(path, digests, description, single=signature[description.input][1][0] == 1)


def read_description(folder: Path) -> ModelDescription:
    """Raises UsageError where there is none, or a field is unknown, missing, or of a value that is not accepted."""
    where = folder / FILE
    try:
        content = tomllib.loads(read_limited(where, _LARGEST, str(where)).decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--model {folder}: this folder has no {FILE}, which says how its ONNX file is used") from None
    except RecursionError:
        raise UsageError(f"{where}: too many levels") from None
    except ValueError as error:  # tomllib's errors are ValueErrors
        raise UsageError(f"{where}: {quoted(' '.join(str(error).split()))}") from None
    return description_of(content, str(where))


def description_of(content: Mapping[str, Any], where: str) -> ModelDescription:
    """The same of what was read; `where` is named in errors."""
    known = {f.name: f for f in fields(ModelDescription)}
    for name in content:
        require(name in known, f"{where}: unknown field '{quoted(name)}'{nearest(name, known)}")
    missing = [name for name, f in known.items() if f.default is MISSING and name not in content]
    require(not missing, f"{where}: {', '.join(missing)} missing")
    values = {name: _value(value, known[name].type, f"{where}: {name}") for name, value in content.items()}
    found = ModelDescription(**values)
    for name, accepted in _ACCEPTED.items():
        value = getattr(found, name)
        require(
            value in accepted, f"{where}: {name} = {quoted(repr(value))}: must be {' or '.join(map(repr, accepted))}"
        )
    for name, bounds in _MOST.items():
        bounds(getattr(found, name), f"{where}: {name} =")
    plain = found.file == Path(found.file).name and "\\" not in found.file
    require(plain, f"{where}: file = {quoted(found.file)}: must be the name of a file in the same folder")
    for name in ("mean", "std"):
        count = len(getattr(found, name))
        require(count in (1, found.depth), f"{where}: {name}: must have 1 or {found.depth} values, has {count}")
        require(all(map(isfinite, getattr(found, name))), f"{where}: {name}: must be finite numbers")
    require(all(value > 0 for value in found.std), f"{where}: std: must be above 0")
    least, inverse = found.match_threshold, found.inverse_temperature
    require(0 < least < 1, f"{where}: match_threshold = {least}: must be above 0 and below 1")
    require(0 < inverse <= 40, f"{where}: inverse_temperature = {inverse}: must be above 0 and at most 40")
    return found


def _value(value: Any, kind: Any, where: str) -> Any:
    """A field as its type; a list of numbers is the only type that options do not have."""
    if kind != tuple[float, ...]:
        return as_type(value, kind, where, numbers_as_text=False)
    every = value if isinstance(value, list) else [value]
    return tuple(as_type(one, float, where) for one in every)


@cache
def _signature(path: Path, _sha256: str) -> tuple[dict[str, tuple[str, list[Any]]], tuple[str, ...]]:
    """Inputs of an ONNX file with types and shapes, and names of its outputs; read once in a process."""
    from sfm_match.runtime import EngineError
    from sfm_match.runtime.ort import OrtSession

    try:
        session = OrtSession(path)
    except EngineError as error:
        raise NothingDone(str(error)) from None
    inputs = {one.name: (one.type, one.shape) for one in session.inner.get_inputs()}
    return inputs, tuple(session.outputs)


def _check_file(
    where: Path, described: ModelDescription, inputs: Mapping[str, tuple[str, list[Any]]], outputs: tuple[str, ...]
) -> None:
    """Raises UsageError where the file is not what its description says."""
    for name, known in (("input", tuple(inputs)), *((o, outputs) for o in ("keypoints", "scores", "descriptors"))):
        value, kind = getattr(described, name), "inputs" if name == "input" else "outputs"
        found = f"{where}: {name} = {value!r}: the {kind} of {described.file} are {', '.join(known)}"
        require(value in known, found + nearest(value, known))
    what = f"{where}: {described.file}"
    require(len(inputs) == 1, f"{what} takes {', '.join(inputs)}: must take an image only")
    kind, shape = inputs[described.input]
    require(kind == "tensor(float)", f"{what} takes a {kind}: must take float32")
    depth = described.depth
    fits = len(shape) == 4 and shape[1] in (depth, None) and not any(isinstance(side, int) for side in shape[2:])
    shown = ", ".join(map(str, shape))
    require(fits, f"{what} takes ({shown}): must take (B, {depth}, H, W) of any height and width")
    require(
        shape[0] == 1 or not isinstance(shape[0], int), f"{what} takes {shape[0]} images: must take any number, or 1"
    )
