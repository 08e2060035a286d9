"""The options of every stage: the one place that names them, documents them and checks them.

The command line, the YAML file of `run` and the Python functions are all made from these dataclasses.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sfm_match.errors import UsageError, nearest
from sfm_match.options.base import AUTO as AUTO
from sfm_match.options.base import (
    WHOLE_RUNS,
    Options,
    Refused,
    aliases_of,
    as_type,
    converted,
    fields_of,
    flag,
    option,
    require,
    resolve_aliases,
)
from sfm_match.options.devices import DEVICES, EVERY_GPU
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.workers import check_devices, check_workers

DUAL_SOFTMAX, LIGHTGLUE = "dual-softmax", "lightglue"
PILLOW, NVIMGCODEC = "pillow", "nvimgcodec"
DECODERS = (PILLOW, NVIMGCODEC)
LEAST_TILE = 256  # pixels a side
DEVICE_HELP = (
    f"where networks run and pairs are matched: {', '.join(DEVICES)}; auto takes the fastest available one, "
    "cuda:1 is the second GPU"
)
_SEVERAL = f"several devices at once, a process each: {EVERY_GPU} (every GPU), or a list, cuda:0,cuda:1"
_ENGINE = "export engine"  # it needs shapes and networks, not photographs' content
_PART = "i/n: do the i-th of n parts; each is a process of its own, on any machine that shares the folders"
_RAY = (
    "workers on a Ray cluster, one a GPU or a processor: its address, or without one the cluster that Ray knows of, or "
    "one on this machine; the folders are shared"
)
_TWO_IMAGES = Refused(("infer",))
_ONLY_JOBS = Refused(("infer", _ENGINE))
_NO_ENGINE = Refused((_ENGINE,))
_ONE_STAGE = Refused((*WHOLE_RUNS, "infer", _ENGINE))


@dataclass(frozen=True)
class ExtractOptions(Options):
    """Which network describes the images, at which size, how many keypoints it keeps, and on what it runs."""

    title: ClassVar[str] = "Extraction"

    model: str = option(
        "dedode-nano",
        "network; `dedode-nano` is built in, `sfm-match models list` names the others; "
        "or a folder with an ONNX file and its model.toml",
    )
    size: int = option(1024, "long side of an image at the network, pixels; smaller images are not enlarged")
    max_keypoints: int = option(4096, "keypoints kept per image, the strongest first")
    tile: int | None = option(
        None,
        "cut images whose long side is larger at --size into tiles of this side, network pixels: for large photographs",
        default_is="images go through the network whole",
        refused=_TWO_IMAGES,
    )
    tile_overlap: int = option(
        256, "network pixels that neighbouring tiles have in common at least", refused=_TWO_IMAGES
    )
    device: str = option(AUTO, DEVICE_HELP, fingerprinted=False, refused=_NO_ENGINE)
    precision: str = option(AUTO, "number format of the network", choices=(AUTO, "fp32", "fp16"))
    masks: Path | None = option(
        None,
        "folder of masks, NAME.png for image NAME (COLMAP's convention) or FOLDER.png for a folder of images, or one "
        "mask for all; black hides",
        refused=_ONLY_JOBS,
    )
    fps: float | None = option(
        None,
        "of a video in --images: so many frames a second, the sharpest of each stretch",
        fingerprinted=False,
        default_is="2, and at least 100 of a short video",
        refused=_ONLY_JOBS,
    )
    frames: int | None = option(
        None, "of a video in --images: so many frames in all", fingerprinted=False, refused=_ONLY_JOBS
    )
    turns: bool = option(
        False,
        "describe images in four rotations, for pictures at any rotation, as from drones; four times slower",
    )
    batch: str = option(AUTO, "images per network call, or auto", fingerprinted=False)
    devices: str | None = option(None, _SEVERAL, fingerprinted=False, refused=_ONLY_JOBS)
    ray: str | None = option(None, _RAY, bare=AUTO, fingerprinted=False, refused=_ONLY_JOBS)
    part: str | None = option(None, _PART, fingerprinted=False, refused=_ONE_STAGE)
    workers: int = option(0, "decoding threads; 0: one per core", fingerprinted=False, refused=_ONLY_JOBS)
    detection_threshold: float = option(
        0.0,
        "least detection probability (softmax over the image's pixels)",
        aliases=("threshold",),
        refused=_NO_ENGINE,
    )
    border: int = option(4, "no keypoint closer to the image's edge than this, network pixels", refused=_NO_ENGINE)
    subpixel: bool = option(True, "refine keypoints by a soft-argmax over the detector's logits")
    all_keypoints: bool = option(
        False,
        "up to --max-keypoints in any image, beyond what the network can tell apart",
        refused=_NO_ENGINE,
    )
    decoder: str = option(
        PILLOW,
        "what decodes JPEGs; nvimgcodec: NVIDIA's nvImageCodec, on the GPU where there is one; pixels differ",
        choices=DECODERS,
        refused=_NO_ENGINE,
    )
    reduced_decode: bool = option(
        True, "decode large JPEGs at 1/2, 1/4 or 1/8 where --size needs no more", refused=_ONLY_JOBS
    )
    weights: str | None = option(None, "checkpoints of the network, FILE[,FILE]", fingerprinted=False)
    weights_dir: Path | None = option(
        None, "folder of weights", fingerprinted=False, default_is="SFM_MATCH_WEIGHTS, or the cache"
    )
    random_weights: bool = option(False, "seeded weights that match nothing, to check memory", fingerprinted=False)
    dummy_network: bool = option(
        False,
        "only read images, to measure how fast they come",
        fingerprinted=False,
        refused=_ONE_STAGE,
    )

    def inputs(self) -> dict[str, Any]:
        chosen = super().inputs()
        if self.tile is None:
            del chosen["tile"], chosen["tile_overlap"]
        return chosen

    def validate(self) -> None:
        require(self.fps is None or 0 < self.fps <= 1000, f"--fps {self.fps}: must be above 0 and at most 1,000")
        require(self.frames is None or self.frames >= 2, f"--frames {self.frames}: must be at least 2")
        require(self.fps is None or self.frames is None, "--fps and --frames: give one of them")
        require(self.size >= 64, f"--size {self.size}: must be at least 64 pixels")
        require(self.max_keypoints >= 1, f"--max-keypoints {self.max_keypoints}: must be at least 1")
        valid = self.batch == AUTO or (self.batch.isdecimal() and int(self.batch) >= 1)
        require(valid, f"--batch {self.batch}: must be auto, or a whole number of at least 1")
        check_devices(self.device, self.devices)
        check_workers(self.devices, self.ray, self.part)
        least = self.detection_threshold
        require(0 <= least < 1, f"--detection-threshold {least}: must be a probability, at least 0 and below 1")
        require(self.border >= 0, f"--border {self.border}: must be at least 0 pixels")
        require(self.workers >= 0, f"--workers {self.workers}: must be at least 0 (0: one per core)")
        self._validate_tiles()
        if self.masks is not None and not self.masks.exists():
            raise UsageError(f"--masks {self.masks}: no such folder or file")

    def _validate_tiles(self) -> None:
        tile, overlap = self.tile, self.tile_overlap
        if tile is None:
            plain = overlap == ExtractOptions.tile_overlap
            require(plain, f"--tile-overlap {overlap}: only with --tile")
            return
        require(tile >= LEAST_TILE, f"--tile {tile}: must be at least {LEAST_TILE} pixels")
        require(tile < self.size, f"--tile {tile}: must be below --size, here {self.size}, or no image is cut")
        accepted = 2 * self.border, tile // 2
        message = (
            f"--tile-overlap {overlap}: must be from {accepted[0]} (twice --border) to {accepted[1]} (half of --tile)"
        )
        require(accepted[0] <= overlap <= accepted[1], message)


@dataclass(frozen=True)
class MatchOptions(Options):
    """Which descriptors match one another, and where pairs are matched."""

    title: ClassVar[str] = "Matching"

    matcher: str = option(
        DUAL_SOFTMAX,
        "what matches two images: the dual softmax of their descriptors, or LightGlue, a network that was trained for "
        "the published DeDoDe",
        choices=(DUAL_SOFTMAX, LIGHTGLUE),
        refused=Refused(("infer", _ENGINE)),
    )
    matcher_weights: Path | None = option(
        None,
        "checkpoint of the LightGlue, for any descriptors",
        fingerprinted=False,
        default_is="the published one",
        refused=Refused(("infer", _ENGINE)),
    )
    weights_dir: Path | None = option(
        None, "folder of weights", fingerprinted=False, default_is="SFM_MATCH_WEIGHTS, or the cache"
    )
    match_threshold: float | None = option(
        None,
        "least probability of a match",
        default_is="the model's; 0.1 for LightGlue",
        aliases=("threshold",),
    )
    device: str = option(AUTO, DEVICE_HELP, fingerprinted=False, refused=_NO_ENGINE)
    devices: str | None = option(None, _SEVERAL, fingerprinted=False, refused=_ONLY_JOBS)
    ray: str | None = option(None, _RAY, bare=AUTO, fingerprinted=False, refused=_ONLY_JOBS)
    part: str | None = option(None, _PART, fingerprinted=False, refused=_ONE_STAGE)
    match_workers: int = option(
        0, "matching threads; 0: one per core", fingerprinted=False, aliases=("workers",), refused=_TWO_IMAGES
    )
    inverse_temperature: float | None = option(
        None, "inverse temperature of the dual softmax", default_is="the model's, 20 for DeDoDe"
    )

    def inputs(self) -> dict[str, Any]:
        chosen = super().inputs()
        if self.matcher == LIGHTGLUE:
            del chosen["inverse_temperature"]
        return chosen

    def validate(self) -> None:
        learned = self.matcher == LIGHTGLUE
        require(learned or self.matcher_weights is None, "--matcher-weights: only with --matcher lightglue")
        require(
            not learned or self.inverse_temperature is None, "--inverse-temperature: only with --matcher dual-softmax"
        )
        least = self.match_threshold
        message = f"--match-threshold {least}: must be a probability, above 0 and below 1"
        require(least is None or 0 < least < 1, message)
        check_devices(self.device, self.devices)
        check_workers(self.devices, self.ray, self.part)
        # exp(t (cos - 1)) must not underflow in float32 at cos = -1
        inverse = self.inverse_temperature
        message = f"--inverse-temperature {inverse}: must be above 0 and at most 40"
        require(inverse is None or 0 < inverse <= 40, message)
        require(self.match_workers >= 0, f"--match-workers {self.match_workers}: must be at least 0 (0: one per core)")


@dataclass(frozen=True)
class ImportOptions(Options):
    """The cameras of the database, and how matches are verified."""

    title: ClassVar[str] = "Import"

    camera_mode: str = option(
        AUTO,
        "which images share a camera",
        choices=(AUTO, "single", "per-folder", "per-image"),
    )
    camera_model: str = option("SIMPLE_RADIAL", "COLMAP camera model")
    camera_params: str | None = option(None, "intrinsics of every camera, in COLMAP's order, separated by commas")
    cameras: Path | None = option(
        None, "YAML file of camera models and intrinsics by patterns of names, for images that have others"
    )
    rig_config: Path | None = option(
        None, "file of rigs, COLMAP's JSON: cameras that move together, a folder or prefix of the names each"
    )
    verify: bool = option(True, "geometric verification of the matches")
    adjust_keypoints: bool = option(
        True, "move verified keypoints to where the image patches around them align, below the pixel"
    )
    accept_pairs: str = option(
        AUTO,
        "auto: pairs whose matches and geometry are more than chance; all: every pair of 15 inliers, as COLMAP does",
        choices=(AUTO, "all"),
    )

    @property
    def intrinsics(self) -> tuple[float, ...] | None:
        """`camera_params` as numbers."""
        return None if self.camera_params is None else tuple(float(p) for p in self.camera_params.split(","))

    def inputs(self) -> dict[str, Any]:
        chosen = super().inputs()
        for name in ("cameras", "rig_config"):  # their content counts
            file: Path | None = getattr(self, name)
            if file is not None:
                chosen[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        if not self.verify:
            for name in ("adjust_keypoints", "accept_pairs"):  # only what is verified is judged and adjusted
                del chosen[name]
        return chosen

    def validate(self) -> None:
        for name in ("cameras", "rig_config"):
            file: Path | None = getattr(self, name)
            require(file is None or file.is_file(), f"{flag(name)} {file}: no such file")
        if self.camera_params is not None:
            try:
                _ = self.intrinsics
            except ValueError:
                message = f"--camera-params {self.camera_params}: must be numbers separated by commas"
                raise UsageError(message) from None


@dataclass(frozen=True)
class ReconstructOptions(Options):
    """The mapper, what it refines, and which models are kept."""

    title: ClassVar[str] = "Reconstruction"

    mapper: str = option(
        "incremental",
        "kind of reconstruction",
        choices=("incremental", "global", "none"),
        refused=Refused(("reconstruct",), ("none",)),
    )
    known_poses: Path | None = option(
        None, "folder of a COLMAP model: its poses and cameras stay, by the images' names, and points are triangulated"
    )
    refine_focal_length: bool | None = option(
        None, "refine focal lengths and distortion", default_is="only where --camera-params does not give them"
    )
    min_registered: float = option(
        0.0, "exit status 1 where a smaller share of all images is registered", fingerprinted=False
    )
    min_model_size: int = option(3, "smaller models are dropped, images")
    mapper_threads: int = option(
        0, "threads of the mapper; 0: one per core; with 1, equal inputs give equal models", fingerprinted=False
    )
    seed: int = option(0, "of every random choice")
    use_position_priors: bool = option(
        False, "incremental: the mapper and the robust refinement hold cameras to their GPS positions, too"
    )
    align_to_gps: bool = option(
        True, "bring models to metres east, north and up by the GPS of three photographs or more"
    )
    robust_refinement: bool = option(True, "end with a bundle adjustment that uses a robust (Cauchy) loss")

    def validate(self) -> None:
        model = self.known_poses
        require(model is None or model.is_dir(), f"--known-poses {model}: no such folder")
        require(model is None or not self.use_position_priors, "--known-poses and --use-position-priors: give one")
        incremental = self.mapper == "incremental"
        require(incremental or not self.use_position_priors, "--use-position-priors: needs --mapper incremental")
        require(self.min_model_size >= 2, f"--min-model-size {self.min_model_size}: must be at least 2")
        share = self.min_registered
        require(0 <= share <= 1, f"--min-registered {share}: must be a share from 0 to 1")
        require(self.seed >= 0, f"--seed {self.seed}: must be at least 0")
        threads = self.mapper_threads
        require(threads >= 0, f"--mapper-threads {threads}: must be at least 0 (0: one per core)")


GROUPS: tuple[type[Options], ...] = (
    ExtractOptions,
    PairsOptions,
    MatchOptions,
    ImportOptions,
    ReconstructOptions,
)
OPTION_NAMES = frozenset(f.name for group in GROUPS for f in fields(group))
# what the YAML of `run` takes beside the options of stages
OF_RUN: dict[str, Any] = {
    "images": Path,
    "workspace": Path,
    "report": bool,
    "overwrite": bool,
    "json": bool,
    "verbose": bool,
}


def read_job(path: Path) -> dict[str, Any]:
    """The YAML of `run --config`: the options of `run` by their present names. The file may write them with - or _.

    Raises:
        UsageError: the file cannot be read, names an unknown option (with the nearest known one), gives a value of
            another type, or gives two values for one option.
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
    known = fields_of("run", GROUPS)
    aliases = aliases_of(known)
    job = {}
    for key, value in content.items():
        name, where = str(key).replace("-", "_"), f"--config {path}: {key}"
        if name in OF_RUN:
            job[name] = as_type(value, OF_RUN[name], where)
        elif (present := aliases.get(name, name)) in known:
            job[name] = converted(value, known[present], where)
        else:
            raise UsageError(f"--config {path}: unknown option '{key}'{nearest(name, [*known, *OF_RUN])}")
    try:
        return resolve_aliases(job, known)
    except UsageError as error:
        raise UsageError(f"--config {path}: {error}") from None
