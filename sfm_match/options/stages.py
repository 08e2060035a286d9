"""The options of every stage: the one place that names them, documents them and checks them.

The command line, the YAML file of `run` and the Python functions are all made from these dataclasses.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sfm_match.errors import UsageError, quoted
from sfm_match.options.base import AUTO as AUTO
from sfm_match.options.base import (
    COUNT,
    ENGINE,
    INT32,
    THREADS,
    WHOLE_RUNS,
    Bounds,
    Options,
    Refused,
    file_is_there,
    folder_is_there,
    option,
    require,
    something_is_there,
)
from sfm_match.options.devices import DEVICES, EVERY_GPU
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.quality import MEDIUM, QUALITIES, ByQuality
from sfm_match.options.workers import ONLY_JOBS, check_device, check_devices, check_part, check_workers, ray_option

DUAL_SOFTMAX, LIGHTGLUE = "dual-softmax", "lightglue"
PILLOW, NVIMGCODEC = "pillow", "nvimgcodec"
DECODERS = (PILLOW, NVIMGCODEC)
LEAST_TILE, MOST_SIDE = 256, 65_536  # pixels
MOST_BATCH = 1024  # images
MOST_INTRINSIC = 10_000_000  # pixels, or of a coefficient
# exp(t (cos - 1)) must not underflow in float32 at cos = -1
INVERSE_TEMPERATURE = Bounds(0, 40, above=True)
DEVICE_HELP = (
    f"where networks run and pairs are matched: {', '.join(DEVICES)}; auto takes the fastest available one, "
    "cuda:1 is the second GPU"
)
_SEVERAL = f"several devices at once, a process each: {EVERY_GPU} (every GPU), or a list, cuda:0,cuda:1"
_PART = "i/n: do the i-th of n parts; each is a process of its own, on any machine that shares the folders"
_TWO_IMAGES = Refused(("infer",))
_NO_ENGINE = Refused((ENGINE,))
_ONE_STAGE = Refused((*WHOLE_RUNS, "infer", ENGINE))


def check_batch(value: str, where: str) -> None:
    valid = value == AUTO or (value.isdecimal() and len(value) < 9 and 1 <= int(value) <= MOST_BATCH)
    message = f"{where} {quoted(value)}: must be auto, or a whole number of at least 1 and at most {MOST_BATCH:,}"
    require(valid, message)


def check_camera_params(value: str, where: str) -> None:
    try:
        params = tuple(float(one) for one in value.split(","))
    except ValueError:
        raise UsageError(f"{where} {quoted(value)}: must be numbers separated by commas") from None
    check_intrinsics(params, f"{where} {quoted(value)}")


def check_intrinsics(params: Sequence[float], where: str) -> None:
    """Raises UsageError for parameters that no camera has: every model of COLMAP's begins with a focal length."""
    sane = all(abs(one) <= MOST_INTRINSIC for one in params)  # false for NaN, too
    require(sane, f"{where}: must be finite numbers, at most {MOST_INTRINSIC:,} either way")
    require(len(params) == 0 or params[0] > 0, f"{where}: the focal length must be above 0 pixels")


@dataclass(frozen=True)
class ExtractOptions(Options):
    """Which network describes the images, at which size, how many keypoints it keeps, and on what it runs."""

    title: ClassVar[str] = "Extraction"

    model: str = option(
        "dedode-nano",
        "network; `dedode-nano` is built in, `sfm-match models list` names the others; "
        "or a folder with an ONNX file and its model.toml",
    )
    quality: str = option(
        MEDIUM,
        "what --size and --max-keypoints are where they are not given: "
        + ", ".join(f"{name} {chosen.size} and {chosen.max_keypoints}" for name, chosen in QUALITIES.items()),
        choices=tuple(QUALITIES),
        fingerprinted=False,  # what it sets is
    )
    size: int = option(
        ByQuality(QUALITIES[MEDIUM].size),
        "long side of an image at the network, pixels; smaller images are not enlarged",
        check=Bounds(64, MOST_SIDE, "pixels"),
    )
    max_keypoints: int = option(
        ByQuality(QUALITIES[MEDIUM].max_keypoints), "keypoints kept per image, the strongest first", check=COUNT
    )
    tile: int | None = option(
        None,
        "cut images whose long side is larger at --size into tiles of this side, network pixels: for large photographs",
        default_is="images go through the network whole",
        refused=_TWO_IMAGES,
        check=Bounds(LEAST_TILE, MOST_SIDE, "pixels"),
    )
    tile_overlap: int = option(
        256,
        "network pixels that neighbouring tiles have in common at least",
        refused=_TWO_IMAGES,
        check=Bounds(0, MOST_SIDE, "pixels"),
    )
    device: str = option(AUTO, DEVICE_HELP, fingerprinted=False, refused=_NO_ENGINE, check=check_device)
    precision: str = option(AUTO, "number format of the network", choices=(AUTO, "fp32", "fp16"))
    masks: Path | None = option(
        None,
        "folder of masks, NAME.png for image NAME (COLMAP's convention) or FOLDER.png for a folder of images, or one "
        "mask for all; black hides",
        check=something_is_there,
        refused=ONLY_JOBS,
    )
    fps: float | None = option(
        None,
        "of a video in --images: so many frames a second, the sharpest of each stretch",
        fingerprinted=False,
        default_is="2, and at least 100 of a short video",
        refused=ONLY_JOBS,
        check=Bounds(0, 1000, above=True),
    )
    frames: int | None = option(
        None,
        "of a video in --images: so many frames in all",
        fingerprinted=False,
        refused=ONLY_JOBS,
        check=Bounds(2, COUNT.most),
    )
    turns: bool = option(
        False, "describe images in four rotations, for pictures at any rotation, as from drones; four times slower"
    )
    batch: str = option(AUTO, "images per network call, or auto", fingerprinted=False, check=check_batch)
    devices: str | None = option(None, _SEVERAL, fingerprinted=False, refused=ONLY_JOBS, check=check_devices)
    workers: int = option(0, "decoding threads; 0: one per core", fingerprinted=False, refused=ONLY_JOBS, check=THREADS)
    ray: str | None = ray_option()
    part: str | None = option(None, _PART, fingerprinted=False, refused=_ONE_STAGE, check=check_part)
    detection_threshold: float = option(
        0.0,
        "least detection probability (softmax over the image's pixels)",
        aliases=("threshold",),
        refused=_NO_ENGINE,
        check=Bounds(0, 1, kind="a probability", below=True),
    )
    border: int = option(
        4,
        "no keypoint closer to the image's edge than this, network pixels",
        refused=_NO_ENGINE,
        check=Bounds(0, 1024, "pixels"),
    )
    subpixel: bool = option(True, "refine keypoints by a soft-argmax over the detector's logits")
    all_keypoints: bool = option(
        False, "up to --max-keypoints in any image, beyond what the network can tell apart", refused=_NO_ENGINE
    )
    decoder: str = option(
        PILLOW,
        "what decodes JPEGs; nvimgcodec: NVIDIA's nvImageCodec, on the GPU where there is one; pixels differ",
        choices=DECODERS,
        refused=_NO_ENGINE,
    )
    reduced_decode: bool = option(
        True, "decode large JPEGs at 1/2, 1/4 or 1/8 where --size needs no more", refused=ONLY_JOBS
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

    def resolve(self) -> None:
        for name, value in QUALITIES[self.quality]._asdict().items():
            if isinstance(getattr(self, name), ByQuality):
                object.__setattr__(self, name, ByQuality(value))

    def validate(self) -> None:
        require(self.fps is None or self.frames is None, "--fps and --frames: give one of them")
        check_workers(self.devices, self.ray, self.part)
        self._validate_tiles()

    def _validate_tiles(self) -> None:
        tile, overlap = self.tile, self.tile_overlap
        if tile is None:
            plain = overlap == ExtractOptions.tile_overlap
            require(plain, f"--tile-overlap {overlap}: only with --tile")
            return
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
        refused=Refused(("infer", ENGINE)),
    )
    matcher_weights: Path | None = option(
        None,
        "checkpoint of the LightGlue, for any descriptors",
        fingerprinted=False,
        default_is="the published one",
        refused=Refused(("infer", ENGINE)),
    )
    weights_dir: Path | None = option(
        None, "folder of weights", fingerprinted=False, default_is="SFM_MATCH_WEIGHTS, or the cache"
    )
    match_threshold: float | None = option(
        None,
        "least probability of a match",
        default_is="the model's; 0.1 for LightGlue",
        aliases=("threshold",),
        check=Bounds(0, 1, kind="a probability", above=True, below=True),
    )
    device: str = option(AUTO, DEVICE_HELP, fingerprinted=False, refused=_NO_ENGINE, check=check_device)
    devices: str | None = option(None, _SEVERAL, fingerprinted=False, refused=ONLY_JOBS, check=check_devices)
    ray: str | None = ray_option()
    part: str | None = option(None, _PART, fingerprinted=False, refused=_ONE_STAGE, check=check_part)
    match_workers: int = option(
        0,
        "matching threads; 0: one per core",
        fingerprinted=False,
        aliases=("workers",),
        refused=_TWO_IMAGES,
        check=THREADS,
    )
    inverse_temperature: float | None = option(
        None,
        "inverse temperature of the dual softmax",
        default_is="the model's, 20 for DeDoDe",
        check=INVERSE_TEMPERATURE,
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
        check_workers(self.devices, self.ray, self.part)


@dataclass(frozen=True)
class ImportOptions(Options):
    """The cameras of the database, and how matches are verified."""

    title: ClassVar[str] = "Import"

    camera_mode: str = option(AUTO, "which images share a camera", choices=(AUTO, "single", "per-folder", "per-image"))
    camera_model: str = option("SIMPLE_RADIAL", "COLMAP camera model")
    camera_params: str | None = option(
        None, "intrinsics of every camera, in COLMAP's order, separated by commas", check=check_camera_params
    )
    cameras: Path | None = option(
        None,
        "YAML file of camera models and intrinsics by patterns of names, for images that have others",
        check=file_is_there,
    )
    rig_config: Path | None = option(
        None,
        "file of rigs, COLMAP's JSON: cameras that move together, a folder or prefix of the names each",
        check=file_is_there,
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
    ray: str | None = ray_option()

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
        None,
        "folder of a COLMAP model: its poses and cameras stay, by the images' names, and points are triangulated",
        check=folder_is_there,
    )
    refine_focal_length: bool | None = option(
        None, "refine focal lengths and distortion", default_is="only where --camera-params does not give them"
    )
    min_registered: float = option(
        0.0,
        "exit status 1 where a smaller share of all images is registered",
        fingerprinted=False,
        check=Bounds(0, 1, kind="a share"),
    )
    min_model_size: int = option(3, "smaller models are dropped, images", check=Bounds(2, INT32, "images"))
    mapper_threads: int = option(
        0,
        "threads of the mapper; 0: one per core; with 1, equal inputs give equal models",
        fingerprinted=False,
        check=THREADS,
    )
    seed: int = option(0, "of every random choice", check=Bounds(0, INT32))
    use_position_priors: bool = option(
        False, "incremental: the mapper and the robust refinement hold cameras to their GPS positions, too"
    )
    align_to_gps: bool = option(
        True, "bring models to metres east, north and up by the GPS of three photographs or more"
    )
    robust_refinement: bool = option(True, "end with a bundle adjustment that uses a robust (Cauchy) loss")

    def validate(self) -> None:
        model = self.known_poses
        require(model is None or not self.use_position_priors, "--known-poses and --use-position-priors: give one")
        incremental = self.mapper == "incremental"
        require(incremental or not self.use_position_priors, "--use-position-priors: needs --mapper incremental")


GROUPS: tuple[type[Options], ...] = (ExtractOptions, PairsOptions, MatchOptions, ImportOptions, ReconstructOptions)
OPTION_NAMES = frozenset(f.name for group in GROUPS for f in fields(group))
