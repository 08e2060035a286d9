"""Pair strategies and their options. Names are COLMAP's where COLMAP has the strategy, hloc's where hloc has it.

A strategy is a function of `pairs`, which streams pairs; its arguments are named as options of `PairsOptions`, or as
what `stages.strategies.Sources` reads from the workspace (`count`, `names`, `positions`, `vectors`, `verified`, ...).
A new one is a module in `pairs`, and here a line in `STRATEGIES` with its options in `PairsOptions`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sfm_match.errors import quoted
from sfm_match.options.base import (
    AUTO,
    COUNT,
    WHOLE_RUNS,
    Bounds,
    Options,
    Refused,
    file_is_there,
    flag,
    folder_is_there,
    option,
    require,
)
from sfm_match.options.workers import ray_option


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
    overlap: int = option(10, "sequential: each image with this many that follow", check=COUNT)
    loop_detection: bool = option(False, "sequential: also with similar images anywhere in the sequence")
    num_images: int = option(20, "retrieval: each image with this many most similar ones", check=COUNT)
    match_list_path: Path | None = option(
        None, "list: a file of pairs, one a line (hloc's, COLMAP's or TAB between)", check=file_is_there
    )
    max_num_neighbors: int = option(50, "spatial: each image with at most this many neighbours", check=COUNT)
    max_distance: float = option(
        100.0, "spatial: largest distance of neighbours, metres", check=Bounds(0, 1_000_000_000, "metres", above=True)
    )
    reference_model: Path | None = option(
        None, "poses, covisibility: folder of a COLMAP model of these images", check=folder_is_there
    )
    prune: bool = option(False, "keep only pairs whose coarse score, from their strongest keypoints, is high enough")
    ray: str | None = ray_option()
    quadratic_overlap: bool = option(False, "sequential: also with those 2^k places later, k < overlap")
    loop_detection_period: int = option(10, "loop detection: for every so many images", check=COUNT)
    loop_detection_num_images: int = option(50, "loop detection: with this many most similar images", check=COUNT)
    query_prefix: str | None = option(None, "retrieval: only for images whose names have this prefix")
    query_list: Path | None = option(
        None, "retrieval: only for the images of this file, one a line", check=file_is_there
    )
    db_prefix: str | None = option(None, "retrieval: only with images whose names have this prefix")
    db_list: Path | None = option(None, "retrieval: only with the images of this file, one a line", check=file_is_there)
    ignore_z: bool = option(True, "spatial: ignore heights")
    num_matched: int = option(20, "poses, covisibility: each image with at most this many", check=COUNT)
    rotation_threshold: float = option(
        60.0, "poses: largest angle between viewing directions, degrees", check=Bounds(0, 180, "degrees", above=True)
    )
    pose_distance: float | None = option(
        None,
        "poses: largest distance of cameras, units of the model",
        default_is="any distance",
        check=Bounds(0, 1_000_000_000, above=True),
    )
    prune_threshold: float | None = option(
        None,
        "prune: least coarse score (unrelated images mostly score 0.6 to 1.0)",
        default_is="1.0, and 0.75 with --turns",
        check=Bounds(0, 1_000_000),
    )
    prune_num_images: int | None = option(
        None, "prune: instead of the threshold, each image with this many of highest score", check=COUNT
    )
    repair_pairs: int = option(
        20, "repair: pairs across each gap and each bridge", refused=Refused(WHOLE_RUNS), check=COUNT
    )

    def validate(self) -> None:
        alone = self.parts() == (AUTO,) or AUTO not in self.parts()
        require(alone, f"--strategy {quoted(self.strategy)}: auto cannot be joined with other strategies")
        self._require_files()

    def _require_files(self) -> None:
        for needed in {strategy.needs_file for strategy in STRATEGIES.values() if strategy.needs_file}:
            users = [name for name, strategy in STRATEGIES.items() if strategy.needs_file == needed]
            asked = not set(users).isdisjoint(self.parts())
            message = f"{flag(needed)} belongs to the strateg{'y' if len(users) == 1 else 'ies'} {' and '.join(users)}"
            require(asked == (getattr(self, needed) is not None), message)

    def parts(self) -> tuple[str, ...]:
        """The strategies that are joined."""
        return tuple(self.strategy.split("+"))

    @property
    def second_round(self) -> bool:
        """Whether pairs are added to an existing list."""
        return not set(SECOND_ROUND).isdisjoint(self.parts())
