"""The table of pair strategies.

A strategy is a function of `pairs`, which streams pairs; its arguments are named as options of `PairsOptions`, or as
what `stages.strategies.Sources` reads from the workspace (`count`, `names`, `positions`, `vectors`, `verified`, ...).
A new one is a module in `pairs` and a line here, with its options in `PairsOptions`.
"""

from dataclasses import dataclass

AUTO = "auto"


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
NAMES = (AUTO, *STRATEGIES)
