"""The options of every stage: the one place that names them, documents them and checks them.

The command line, the YAML file of `run` and the Python functions are all made from these dataclasses.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfm_match.errors import UsageError, nearest
from sfm_match.options.base import AUTO as AUTO
from sfm_match.options.base import Options, kinds_of, option, require, run_name
from sfm_match.options.devices import DEVICES, EVERY_GPU, split_device
from sfm_match.options.pairs import PairsOptions

PILLOW, NVIMGCODEC = "pillow", "nvimgcodec"
DECODERS = (PILLOW, NVIMGCODEC)
_DEVICE = f"{', '.join(DEVICES)}; auto takes the fastest that is here; cuda:1 is the second GPU"
_SEVERAL = f"devices to use at once, a process each: {EVERY_GPU} (every GPU), or a list, cuda:0,cuda:1"


def _check_devices(device: str, devices: str | None) -> None:
    """Raises UsageError where a name is none of a device."""
    split_device(device)
    if devices is not None and devices != EVERY_GPU:
        for name in devices.split(","):
            split_device(name)


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
    device: str = option(AUTO, f"where networks run and pairs are matched; {_DEVICE}", identity=False)
    devices: str | None = option(None, _SEVERAL, identity=False)
    precision: str = option(AUTO, "number format of the network", choices=(AUTO, "fp32", "fp16"))
    threshold: float = option(
        0.0, "least detection probability (softmax over the image's pixels)", in_run="detection_threshold"
    )
    all_keypoints: bool = option(
        False, "up to --max-keypoints in any image; default: as many as the network can tell apart", formerly=True
    )
    border: int = option(4, "no keypoint closer to the image's edge than this, network pixels")
    subpixel: bool = option(True, "refine keypoints by a soft-argmax over the detector's logits")
    turns: bool = option(
        False,
        "describe images in four quarter turns, for pictures at any rotation, as from drones; four times slower",
        formerly=False,
    )
    masks: Path | None = option(None, "folder of masks, NAME.png for image NAME; black hides (COLMAP's convention)")
    workers: int = option(0, "decoding threads; 0: one per core", identity=False)
    reduced_decode: bool = option(
        True, "decode large JPEGs at 1/2, 1/4 or 1/8 where --size needs no more", formerly=False
    )
    decoder: str = option(
        PILLOW,
        "what decodes JPEGs; nvimgcodec: NVIDIA's nvImageCodec, on the GPU where there is one; pixels differ",
        choices=DECODERS,
        formerly=PILLOW,
    )
    dummy_network: bool = option(False, "only read images, to see how fast they come; not in `run`", identity=False)

    def validate(self) -> None:
        require(self.size >= 64, f"--size {self.size}: accepted are 64 pixels and more")
        require(self.max_keypoints >= 1, f"--max-keypoints {self.max_keypoints}: accepted are 1 and more")
        valid = self.batch == AUTO or (self.batch.isdecimal() and int(self.batch) >= 1)
        require(valid, f"--batch {self.batch}: accepted are auto and whole numbers from 1")
        _check_devices(self.device, self.devices)
        require(0 <= self.threshold < 1, f"--threshold {self.threshold}: accepted is a probability from 0 up to 1")
        require(self.border >= 0, f"--border {self.border}: accepted are 0 pixels and more")
        require(self.workers >= 0, f"--workers {self.workers}: accepted are 0 (one per core) and more")
        if self.masks is not None and not self.masks.is_dir():
            raise UsageError(f"--masks {self.masks}: no such folder")


@dataclass(frozen=True)
class MatchOptions(Options):
    threshold: float | None = option(
        None, "least dual-softmax probability of a match; without: the model's own", in_run="match_threshold"
    )
    inverse_temperature: float = option(20.0, "of the dual softmax")
    device: str = option(AUTO, f"where networks run and pairs are matched; {_DEVICE}", identity=False)
    devices: str | None = option(None, _SEVERAL, identity=False)
    workers: int = option(0, "matching threads; 0: one per core", identity=False, in_run="match_workers")

    def validate(self) -> None:
        if self.threshold is not None:
            message = f"--threshold {self.threshold}: accepted is a probability above 0 and below 1"
            require(0 < self.threshold < 1, message)
        _check_devices(self.device, self.devices)
        # exp(t (cos - 1)) must not underflow in float32 at cos = -1
        message = f"--inverse-temperature {self.inverse_temperature}: accepted are values above 0 and up to 40"
        require(0 < self.inverse_temperature <= 40, message)
        require(self.workers >= 0, f"--workers {self.workers}: accepted are 0 (one per core) and more")


@dataclass(frozen=True)
class ImportOptions(Options):
    camera_mode: str = option(AUTO, "which images share a camera", choices=(AUTO, "single", "per-folder", "per-image"))
    camera_model: str = option("SIMPLE_RADIAL", "COLMAP camera model")
    camera_params: str | None = option(None, "intrinsics of every camera, COLMAP's order, commas between")
    verify: bool = option(True, "geometric verification of the matches")
    accept_pairs: str = option(
        AUTO,
        "auto: pairs whose matches and geometry are more than chance; all: every pair of 15 inliers, as COLMAP does",
        choices=(AUTO, "all"),
        formerly="all",
    )
    adjust_keypoints: bool = option(
        True, "move verified keypoints to where the photographs around them fit one another", formerly=False
    )

    def identity(self) -> dict[str, Any]:
        chosen = super().identity()
        if not self.verify:
            for name in ("adjust_keypoints", "accept_pairs"):  # only what is verified is judged and adjusted
                chosen.pop(name, None)
        return chosen

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
    min_model_size: int = option(3, "smaller models are given up, images")
    min_registered: float = option(
        0.0, "exit status 1 where a smaller share of all images is registered", identity=False
    )
    seed: int = option(0, "of every random choice")
    mapper_threads: int = option(
        0, "threads of the mapper; 0: one per core; with 1, equal inputs give equal models", identity=False
    )

    def validate(self) -> None:
        require(self.min_model_size >= 2, f"--min-model-size {self.min_model_size}: accepted are 2 and more")
        share = self.min_registered
        require(0 <= share <= 1, f"--min-registered {share}: must be a share from 0 to 1")
        require(self.seed >= 0, f"--seed {self.seed}: accepted are 0 and more")
        threads = self.mapper_threads
        require(threads >= 0, f"--mapper-threads {threads}: accepted are 0 (one per core) and more")


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
    kinds = kinds_of(kind)
    if value is None and type(None) in kinds:
        return None
    wanted = next(k for k in kinds if k is not type(None))
    if wanted in (str, Path) and value is not None and not isinstance(value, dict):
        return wanted(",".join(map(str, value)) if isinstance(value, list) else str(value))
    right = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
    if not right or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"--config {path}: {key}: expected {wanted.__name__}, found {value!r}")
    return wanted(value)
