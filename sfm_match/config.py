"""The options of every stage: the one place that names them, documents them and checks them.

The command line, the YAML file of `run` and the Python functions are all made from these dataclasses.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from sfm_match.errors import UsageError, nearest

T = TypeVar("T")
AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "tensorrt", "ort-tensorrt", "torch")


def option(
    default: T, help: str, *, choices: tuple[str, ...] = (), identity: bool = True, in_run: str | None = None
) -> T:
    """A field with its help text.

    Args:
        default: the default value.
        help: one line, with the unit.
        choices: the accepted values, where they are few.
        identity: whether the value changes results. Those that do are fingerprinted; the others may differ from one
            run to the next.
        in_run: the option's name in `run` and in its YAML, where it differs.
    """
    metadata = {"help": help, "choices": choices, "identity": identity, "in_run": in_run}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What all option groups can do."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _natural(getattr(self, f.name), f.type))
            choices: tuple[str, ...] = f.metadata["choices"]
            value = getattr(self, f.name)
            if choices and value is not None and value not in choices:
                raise UsageError(
                    f"{flag(f)} {value}: accepted values are {', '.join(choices)}{nearest(str(value), choices)}"
                )
        self.validate()

    def validate(self) -> None:
        """Raises UsageError that names the accepted values."""

    def identity(self) -> dict[str, Any]:
        """The options that change results, as plain JSON values."""
        chosen = (f.name for f in dataclasses.fields(self) if f.metadata["identity"])
        return {name: _plain(getattr(self, name)) for name in chosen}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Takes its own fields out of `values`, by the names that `run` uses; errors name those, too."""
        names = {run_name(f): f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{names[key]: value for key, value in values.items() if key in names})
        except UsageError as error:
            message = str(error)
            for f in dataclasses.fields(cls):
                if f.metadata["in_run"]:
                    message = message.replace(f"{flag(f)} ", f"--{dashed(run_name(f))} ")
            raise UsageError(message) from None


def _natural(value: Any, kind: Any) -> Any:
    """What Python and YAML users write for a path or a list of numbers, as the option's type."""
    kinds = _kinds(kind)
    if Path in kinds and isinstance(value, str):
        return Path(value)
    if str in kinds and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if str in kinds and isinstance(value, int | Path):
        return str(value)
    return value


def _kinds(kind: Any) -> tuple[Any, ...]:
    """`Path | None` -> (Path, NoneType)."""
    return getattr(kind, "__args__", (kind,))


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def dashed(name: str) -> str:
    """`max_keypoints` -> `max-keypoints`."""
    return name.replace("_", "-")


def flag(f: "dataclasses.Field[Any]") -> str:
    """`max_keypoints` -> `--max-keypoints`."""
    return "--" + dashed(f.name)


def run_name(f: "dataclasses.Field[Any]") -> str:
    """The field's name among all stages' options."""
    return f.metadata["in_run"] or f.name


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True)
class ExtractOptions(Options):
    model: str = option("dedode-nano", "network; `dedode-nano` is built in, `sfm-match models list` names the others")
    weights: str | None = option(None, "checkpoints of the network, FILE[,FILE]", identity=False)
    weights_dir: Path | None = option(
        None, "folder of weights; without: SFM_MATCH_WEIGHTS, or the cache", identity=False
    )
    random_weights: bool = option(False, "seeded weights that match nothing, for checks of memory", identity=False)
    size: int = option(1024, "long side of an image at the network, pixels; smaller images are not enlarged")
    max_keypoints: int = option(4096, "keypoints kept per image, the strongest first")
    batch: str = option(AUTO, "images per network call, or auto", identity=False)
    device: str = option(
        AUTO, "where networks run: auto takes the fastest that is here", choices=DEVICES, identity=False
    )
    precision: str = option(AUTO, "number format of the network", choices=(AUTO, "fp32", "fp16"))
    threshold: float = option(
        0.0, "least detection probability (softmax over the image's pixels)", in_run="detection_threshold"
    )
    border: int = option(4, "no keypoint closer to the image's edge than this, network pixels")
    subpixel: bool = option(True, "refine keypoints by a soft-argmax over the detector's logits")
    turns: bool = option(
        False,
        "describe images in four quarter turns, for pictures at any rotation, as from drones; four times slower",
    )
    masks: Path | None = option(None, "folder of masks, NAME.png for image NAME; black hides (COLMAP's convention)")
    workers: int = option(0, "decoding threads; 0: one per core", identity=False)
    reduced_decode: bool = option(True, "decode large JPEGs at 1/2, 1/4 or 1/8 where --size needs no more")
    dummy_network: bool = option(False, "only read images, to see how fast they come; not in `run`", identity=False)

    def validate(self) -> None:
        _require(self.size >= 64, f"--size {self.size}: accepted are 64 pixels and more")
        _require(self.max_keypoints >= 1, f"--max-keypoints {self.max_keypoints}: accepted are 1 and more")
        valid = self.batch == AUTO or (self.batch.isdecimal() and int(self.batch) >= 1)
        _require(valid, f"--batch {self.batch}: accepted are auto and whole numbers from 1")
        _require(0 <= self.threshold < 1, f"--threshold {self.threshold}: accepted is a probability from 0 up to 1")
        _require(self.border >= 0, f"--border {self.border}: accepted are 0 pixels and more")
        _require(self.workers >= 0, f"--workers {self.workers}: accepted are 0 (one per core) and more")
        if self.masks is not None and not self.masks.is_dir():
            raise UsageError(f"--masks {self.masks}: no such folder")


STRATEGIES = (AUTO, "exhaustive", "sequential", "spatial", "list")


@dataclass(frozen=True)
class PairsOptions(Options):
    strategy: str = option(
        AUTO, f"which images to match: {', '.join(STRATEGIES)}, or several joined by +", in_run="pairs"
    )
    overlap: int = option(10, "sequential: each image with this many that follow")
    quadratic_overlap: bool = option(False, "sequential: also with those 2^k places later, k < overlap")
    max_num_neighbors: int = option(50, "spatial: each image with at most this many around it")
    max_distance: float = option(100.0, "spatial: how far around, metres")
    ignore_z: bool = option(True, "spatial: distances along the ground")
    match_list_path: Path | None = option(None, "list: a file of pairs, one a line (hloc's, COLMAP's or TAB between)")

    def validate(self) -> None:
        for part in self.parts():
            accepted = f"--strategy {self.strategy}: accepted are {', '.join(STRATEGIES)}"
            _require(part in STRATEGIES, accepted + nearest(part, STRATEGIES))
        _require(self.parts() == (AUTO,) or AUTO not in self.parts(), f"--strategy {self.strategy}: auto stands alone")
        _require(self.overlap >= 1, f"--overlap {self.overlap}: accepted are 1 and more")
        neighbors = self.max_num_neighbors
        _require(neighbors >= 1, f"--max-num-neighbors {neighbors}: accepted are 1 and more")
        _require(self.max_distance > 0, f"--max-distance {self.max_distance}: accepted are metres above 0")
        listed = "list" in self.parts()
        _require(listed == (self.match_list_path is not None), "--match-list-path FILE belongs to the strategy `list`")
        if self.match_list_path is not None and not self.match_list_path.is_file():
            raise UsageError(f"--match-list-path {self.match_list_path}: no such file")

    def parts(self) -> tuple[str, ...]:
        """The strategies that are joined."""
        return tuple(self.strategy.split("+"))


@dataclass(frozen=True)
class MatchOptions(Options):
    threshold: float | None = option(
        None, "least dual-softmax probability of a match; without: the model's own", in_run="match_threshold"
    )
    inverse_temperature: float = option(20.0, "of the dual softmax")
    device: str = option(AUTO, "where pairs are matched, as in `extract`", choices=DEVICES, identity=False)
    workers: int = option(0, "matching threads; 0: one per core", identity=False, in_run="match_workers")

    def validate(self) -> None:
        if self.threshold is not None:
            message = f"--threshold {self.threshold}: accepted is a probability above 0 and below 1"
            _require(0 < self.threshold < 1, message)
        # exp(t (cos - 1)) must not underflow in float32 at cos = -1
        message = f"--inverse-temperature {self.inverse_temperature}: accepted are values above 0 and up to 40"
        _require(0 < self.inverse_temperature <= 40, message)
        _require(self.workers >= 0, f"--workers {self.workers}: accepted are 0 (one per core) and more")


@dataclass(frozen=True)
class ImportOptions(Options):
    camera_mode: str = option(AUTO, "which images share a camera", choices=(AUTO, "single", "per-folder", "per-image"))
    camera_model: str = option("SIMPLE_RADIAL", "COLMAP camera model")
    camera_params: str | None = option(None, "intrinsics of every camera, COLMAP's order, commas between")
    verify: bool = option(True, "geometric verification of the matches")

    def validate(self) -> None:
        if self.camera_params is not None:
            try:
                [float(p) for p in self.camera_params.split(",")]
            except ValueError:
                message = f"--camera-params {self.camera_params}: accepted are numbers with commas between"
                raise UsageError(message) from None


@dataclass(frozen=True)
class ReconstructOptions(Options):
    mapper: str = option(
        "incremental", "kind of reconstruction; none belongs to `run`", choices=("incremental", "global", "none")
    )
    refine_focal_length: bool | None = option(
        None, "refine focal lengths and distortion; without: only where --camera-params did not give them"
    )
    robust_refinement: bool = option(True, "end with a bundle adjustment in which wrong observations weigh little")
    min_model_size: int = option(10, "smaller models are given up, images (0.8 of all where that is less)")
    seed: int = option(0, "of every random choice")
    mapper_threads: int = option(
        0, "threads of the mapper; 0: one per core; with 1, equal inputs give equal models", identity=False
    )

    def validate(self) -> None:
        _require(self.min_model_size >= 2, f"--min-model-size {self.min_model_size}: accepted are 2 and more")
        _require(self.seed >= 0, f"--seed {self.seed}: accepted are 0 and more")
        threads = self.mapper_threads
        _require(threads >= 0, f"--mapper-threads {threads}: accepted are 0 (one per core) and more")


GROUPS: tuple[type[Options], ...] = (
    ExtractOptions,
    PairsOptions,
    MatchOptions,
    ImportOptions,
    ReconstructOptions,
)


def read_job(path: Path) -> dict[str, Any]:
    """The YAML of `run --config`: the options of `run`, with - or _ in names.

    Raises:
        UsageError: the file cannot be read, or names an unknown option (with the nearest known one).
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected `option: value` lines")
    fields = {run_name(f): f for group in GROUPS for f in dataclasses.fields(group)}
    others: dict[str, Any] = {"images": Path, "workspace": Path, "overwrite": bool, "json": bool, "verbose": bool}
    known = {*fields, *others}
    job = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(f"--config {path}: unknown option '{key}'{hint}")
        job[name] = _from_yaml(path, str(key), value, fields[name].type if name in fields else others[name])
    return job


def _from_yaml(path: Path, key: str, value: Any, kind: Any) -> Any:
    """YAML's value as the option's type: a list or a number may stand for a string."""
    kinds = _kinds(kind)
    if value is None and type(None) in kinds:
        return None
    wanted = next(k for k in kinds if k is not type(None))
    if wanted in (str, Path) and value is not None and not isinstance(value, dict):
        return wanted(",".join(map(str, value)) if isinstance(value, list) else str(value))
    right = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
    if not right or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"--config {path}: {key}: expected {wanted.__name__}, found {value!r}")
    return wanted(value)
