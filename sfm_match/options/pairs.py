"""Pair strategies and their options. Names are COLMAP's where COLMAP has the strategy, hloc's where hloc has it.

A strategy is a function of `pairs`, which streams pairs; its arguments are named as options of `PairsOptions`, or as
what `stages.strategies.Sources` reads from the workspace (`count`, `names`, `positions`, `vectors`, `verified`, ...).
A new one is a module in `pairs`, and here a line in `STRATEGIES` with its options in `PairsOptions`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sfm_match.options.base import AUTO, WHOLE_RUNS, Options, Refused, flag, option, require


@dataclass(frozen=True)
class Strategy:
    """A line of the table. Functions are `module:name`, imported when they are used."""

    stream: str
    needs_file: str = ""  # the option that names a file or a folder, without which it cannot serve
    second_round: bool = False  # starts from verified pairs, and adds to the list that is there
    try_early: bool = False  # streamed once before images are extracted: what it starts from may be missing or wrong
    bound: str = ""  # how many pairs it gives at most, where features decide


STRATEGIES = {
    "exhaustive": Strategy("pairs.exhaustive:exhaustive"),
    "sequential": Strategy("pairs.sequential:sequential"),
    "retrieval": Strategy("pairs.retrieval:retrieval", bound="pairs.retrieval:most_pairs"),
    "spatial": Strategy("pairs.spatial:spatial", try_early=True),
    "poses": Strategy("pairs.poses:poses", needs_file="reference_model", try_early=True),
    "covisibility": Strategy("pairs.covisibility:covisibility", needs_file="reference_model", try_early=True),
    "list": Strategy("pairs.listed:listed", needs_file="match_list_path", try_early=True),
    "transitive": Strategy("pairs.transitive:transitive", second_round=True),
    "repair": Strategy("pairs.repair:repair", second_round=True),
}
LOOP_DETECTION = Strategy("pairs.loops:loop_detection", bound="pairs.loops:most_pairs")  # an option of `sequential`
SECOND_ROUND = tuple(name for name, strategy in STRATEGIES.items() if strategy.second_round)
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


@dataclass(frozen=True)
class PairsOptions(Options):
    """Which images are matched: a strategy, or several joined by +, and the parameters of each."""

    title: ClassVar[str] = "Pairs"

    strategy: str = option(
        AUTO,
        "which images to match",
        choices=(AUTO, *STRATEGIES),
        joined=True,
        aliases=("pairs",),
        refused=Refused(
            WHOLE_RUNS,
            SECOND_ROUND,
            f"{' and '.join(SECOND_ROUND)} are second rounds, which start from verified pairs: run with another "
            "strategy, then `sfm-match pairs --strategy {value}`, then the same run again",
        ),
    )
    overlap: int = option(10, "sequential: each image with this many that follow")
    loop_detection: bool = option(False, "sequential: also with similar images anywhere in the sequence")
    num_images: int = option(20, "retrieval: each image with this many most similar ones")
    match_list_path: Path | None = option(None, "list: a file of pairs, one a line (hloc's, COLMAP's or TAB between)")
    max_num_neighbors: int = option(50, "spatial: each image with at most this many neighbours")
    max_distance: float = option(100.0, "spatial: largest distance of neighbours, metres")
    reference_model: Path | None = option(None, "poses, covisibility: folder of a COLMAP model of these images")
    prune: bool = option(False, "keep only pairs whose coarse score, from their strongest keypoints, is high enough")
    quadratic_overlap: bool = option(False, "sequential: also with those 2^k places later, k < overlap")
    loop_detection_period: int = option(10, "loop detection: for every so many images")
    loop_detection_num_images: int = option(50, "loop detection: with this many most similar images")
    query_prefix: str | None = option(None, "retrieval: only for images whose names have this prefix")
    query_list: Path | None = option(None, "retrieval: only for the images of this file, one a line")
    db_prefix: str | None = option(None, "retrieval: only with images whose names have this prefix")
    db_list: Path | None = option(None, "retrieval: only with the images of this file, one a line")
    ignore_z: bool = option(True, "spatial: ignore heights")
    num_matched: int = option(20, "poses, covisibility: each image with at most this many")
    rotation_threshold: float = option(60.0, "poses: largest angle between viewing directions, degrees")
    pose_distance: float | None = option(
        None, "poses: largest distance of cameras, units of the model", default_is="any distance"
    )
    prune_threshold: float | None = option(
        None,
        "prune: least coarse score (unrelated images mostly score 0.6 to 1.0)",
        default_is="1.0, and 0.75 with --turns",
    )
    prune_num_images: int | None = option(
        None, "prune: instead of the threshold, each image with this many of highest score"
    )
    repair_pairs: int = option(20, "repair: pairs across each gap and each bridge", refused=Refused(WHOLE_RUNS))

    def validate(self) -> None:
        alone = self.parts() == (AUTO,) or AUTO not in self.parts()
        require(alone, f"--strategy {self.strategy}: auto cannot be joined with other strategies")
        for name in _COUNTS:
            value = getattr(self, name)
            require(value is None or value >= 1, f"{flag(name)} {value}: must be at least 1")
        require(self.max_distance > 0, f"--max-distance {self.max_distance}: must be above 0 metres")
        angle, distance = self.rotation_threshold, self.pose_distance
        require(0 < angle <= 180, f"--rotation-threshold {angle}: must be above 0 and at most 180 degrees")
        require(distance is None or distance > 0, f"--pose-distance {distance}: must be above 0")
        threshold = self.prune_threshold
        message = f"--prune-threshold {threshold}: must be at least 0, which keeps every pair"
        require(threshold is None or threshold >= 0, message)
        self._require_files()

    def _require_files(self) -> None:
        for needed in {strategy.needs_file for strategy in STRATEGIES.values() if strategy.needs_file}:
            users = [name for name, strategy in STRATEGIES.items() if strategy.needs_file == needed]
            asked = not set(users).isdisjoint(self.parts())
            message = f"{flag(needed)} belongs to the strateg{'y' if len(users) == 1 else 'ies'} {' and '.join(users)}"
            require(asked == (getattr(self, needed) is not None), message)
        for name in ("match_list_path", "query_list", "db_list"):
            path: Path | None = getattr(self, name)
            require(path is None or path.is_file(), f"{flag(name)} {path}: no such file")
        model = self.reference_model
        require(model is None or model.is_dir(), f"--reference-model {model}: no such folder")

    def parts(self) -> tuple[str, ...]:
        """The strategies that are joined."""
        return tuple(self.strategy.split("+"))

    @property
    def second_round(self) -> bool:
        """Whether pairs are added to an existing list."""
        return not set(SECOND_ROUND).isdisjoint(self.parts())
