"""Options of `pairs`. Names are COLMAP's where COLMAP has the strategy, hloc's where hloc has it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfm_match.errors import nearest
from sfm_match.options.base import AUTO, Options, dashed, option, require

SECOND_ROUND = ("transitive", "repair")  # they start from verified pairs, and add to the list that stands
STRATEGIES = (
    AUTO,
    "exhaustive",
    "sequential",
    "retrieval",
    "spatial",
    "poses",
    "covisibility",
    "list",
    *SECOND_ROUND,
)
# recorded always; the others where they differ from their defaults, so that a workspace from before them goes on
_FIRST_OPTIONS = (
    "strategy",
    "overlap",
    "quadratic_overlap",
    "max_num_neighbors",
    "max_distance",
    "ignore_z",
    "match_list_path",
)


@dataclass(frozen=True)
class PairsOptions(Options):
    strategy: str = option(
        AUTO, f"which images to match: {', '.join(STRATEGIES)}, or several joined by +", in_run="pairs"
    )
    overlap: int = option(10, "sequential: each image with this many that follow")
    quadratic_overlap: bool = option(False, "sequential: also with those 2^k places later, k < overlap")
    loop_detection: bool = option(False, "sequential: also with images anywhere that look alike")
    loop_detection_period: int = option(10, "loop detection: every how many images")
    loop_detection_num_images: int = option(50, "loop detection: with this many that look most alike")
    num_images: int = option(20, "retrieval: each image with this many that look most alike")
    query_prefix: str | None = option(None, "retrieval: only for images whose names begin so")
    query_list: Path | None = option(None, "retrieval: only for the images of this file, one a line")
    db_prefix: str | None = option(None, "retrieval: only with images whose names begin so")
    db_list: Path | None = option(None, "retrieval: only with the images of this file, one a line")
    max_num_neighbors: int = option(50, "spatial: each image with at most this many around it")
    max_distance: float = option(100.0, "spatial: how far around, metres")
    ignore_z: bool = option(True, "spatial: distances along the ground")
    reference_model: Path | None = option(None, "poses, covisibility: folder of a COLMAP model of these images")
    num_matched: int = option(20, "poses, covisibility: each image with at most this many")
    rotation_threshold: float = option(60.0, "poses: how far viewing directions may differ, degrees")
    pose_distance: float | None = option(
        None, "poses: how far cameras may be from one another, units of the model; without: any distance"
    )
    match_list_path: Path | None = option(None, "list: a file of pairs, one a line (hloc's, COLMAP's or TAB between)")
    repair_pairs: int = option(20, "repair: pairs across each gap and each bridge")
    prune: bool = option(False, "keep the pairs whose strongest keypoints promise matches")
    prune_threshold: float | None = option(
        None, "prune: least score; without: 1.0, with --turns 0.75 (unrelated images mostly score 0.6 to 1.0)"
    )
    prune_num_images: int | None = option(None, "prune: instead of the threshold, each image with this many best ones")

    def validate(self) -> None:
        for part in self.parts():
            accepted = f"--strategy {self.strategy}: accepted are {', '.join(STRATEGIES)}"
            require(part in STRATEGIES, accepted + nearest(part, STRATEGIES))
        require(self.parts() == (AUTO,) or AUTO not in self.parts(), f"--strategy {self.strategy}: auto stands alone")
        for name in _COUNTS:
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{dashed(name)} {value}: accepted are 1 and more")
        require(self.max_distance > 0, f"--max-distance {self.max_distance}: accepted are metres above 0")
        angle, distance = self.rotation_threshold, self.pose_distance
        require(0 < angle <= 180, f"--rotation-threshold {angle}: accepted are degrees above 0 and up to 180")
        require(distance is None or distance > 0, f"--pose-distance {distance}: accepted are distances above 0")
        threshold = self.prune_threshold
        message = f"--prune-threshold {threshold}: accepted are scores from 0 (which keeps all)"
        require(threshold is None or threshold >= 0, message)
        self._require_files()

    def _require_files(self) -> None:
        listed = "list" in self.parts()
        require(listed == (self.match_list_path is not None), "--match-list-path FILE belongs to the strategy `list`")
        modelled = not {"poses", "covisibility"}.isdisjoint(self.parts())
        message = "--reference-model DIR belongs to the strategies `poses` and `covisibility`"
        require(modelled == (self.reference_model is not None), message)
        for name in ("match_list_path", "query_list", "db_list"):
            path: Path | None = getattr(self, name)
            require(path is None or path.is_file(), f"--{dashed(name)} {path}: no such file")
        model = self.reference_model
        require(model is None or model.is_dir(), f"--reference-model {model}: no such folder")

    def parts(self) -> tuple[str, ...]:
        """The strategies that are joined."""
        return tuple(self.strategy.split("+"))

    @property
    def second_round(self) -> bool:
        """Whether pairs are added to those that stand."""
        return not set(SECOND_ROUND).isdisjoint(self.parts())

    def identity(self) -> dict[str, Any]:
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        every = super().identity()
        return {k: v for k, v in every.items() if k in _FIRST_OPTIONS or v != defaults[k]}


_COUNTS = (
    "overlap",
    "loop_detection_period",
    "loop_detection_num_images",
    "num_images",
    "max_num_neighbors",
    "num_matched",
    "repair_pairs",
    "prune_num_images",
)
