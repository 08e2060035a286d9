"""The options of `localize`. How features are extracted and matched is on record in the workspace."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sfm_match.options.base import AUTO, COUNT, THREADS, Options, option
from sfm_match.options.stages import DEVICE_HELP, ImportOptions, check_batch, check_camera_params
from sfm_match.options.workers import check_device

ALL_UP_TO = 50  # images of a model: a query is matched with all of them
NUM_IMAGES = 20  # of a larger one


@dataclass(frozen=True)
class LocalizeOptions(Options):
    """With which images of the model queries are matched, what their cameras are, and on what networks run."""

    title: ClassVar[str] = "Localization"

    num_images: int | None = option(
        None,
        "match each query with this many images of the model, those most like it",
        default_is=f"all of a model of up to {ALL_UP_TO}, otherwise {NUM_IMAGES}",
        check=COUNT,
    )
    camera_model: str = option("SIMPLE_RADIAL", "COLMAP camera model of queries whose camera is not in the model")
    camera_params: str | None = option(
        None,
        "intrinsics of every query, in COLMAP's order, separated by commas",
        check=check_camera_params,
        default_is="those of the same camera in the model, or refined",
    )
    adjust_keypoints: bool = option(True, "move matched keypoints to where the image patches around them align")
    device: str = option(AUTO, DEVICE_HELP, fingerprinted=False, check=check_device)
    batch: str = option(AUTO, "images per network call, or auto", fingerprinted=False, check=check_batch)
    workers: int = option(0, "threads that decode and match; 0: one per core", fingerprinted=False, check=THREADS)
    weights: str | None = option(None, "checkpoints of the network, FILE[,FILE]", fingerprinted=False)
    matcher_weights: Path | None = option(
        None, "checkpoint of LightGlue, where the workspace's pairs were matched with one", fingerprinted=False
    )
    weights_dir: Path | None = option(
        None, "folder of weights", fingerprinted=False, default_is="SFM_MATCH_WEIGHTS, or the cache"
    )

    def validate(self) -> None:
        self.cameras()

    def cameras(self) -> ImportOptions:
        """What `import` calls the same. Raises UsageError where the parameters are no numbers."""
        return ImportOptions(camera_model=self.camera_model, camera_params=self.camera_params)
