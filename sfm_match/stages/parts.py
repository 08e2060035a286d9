"""What processes that do parts of one stage agree on, so that together they leave what one process would.

The units of extraction are on record in `images.json`. Blocks of pairs are planned from the pairs that are open, and
those are fewer once another part has written its first block: so the first part to begin writes them down.
"""

from sfm_match.images.collection import Collection
from sfm_match.images.reasons import write_failed
from sfm_match.job.workspace import Workspace
from sfm_match.stages.state import FeatureSet, MatchSet, scan_features
from sfm_match.store.pair_table import PairTable
from sfm_match.store.shard import fingerprint, open_shard, sha256_of, unless_there, write_shard

_AGREED = "match-{}.h5"  # in the folder of parts


def agreed_pairs(workspace: Workspace, features: FeatureSet, found: MatchSet) -> PairTable:
    """The pairs that were open when the first part began, places in the names.

    Raises:
        ShardError: what it wrote down cannot be read.
    """
    told = [found.fingerprint, iter(found.names), features.signed(), sha256_of(workspace.pairs)]
    path = workspace.parts / _AGREED.format(fingerprint(told))
    if not path.exists():
        write_shard(path, {"pairs": found.open_pairs.every()}, {}, unless_there)
    with open_shard(path, "match") as file:
        return PairTable.of_pairs(file["pairs"][()], len(found.names))


def forget_agreed_pairs(workspace: Workspace) -> None:
    """The caller has the workspace alone."""
    for path in workspace.parts.glob(_AGREED.format("*")):
        path.unlink()


def features_of_all_parts(workspace: Workspace, collection: Collection, inputs: dict[str, object]) -> FeatureSet:
    """What all parts have done so far. `failed.csv` is written: the last part to write it knows the most."""
    while True:
        found = scan_features(workspace, collection, inputs)
        write_failed(workspace, found.failed)
        if scan_features(workspace, collection, inputs).open_units == found.open_units:
            return found


def told(part: str, left: int, unit: str) -> str:
    """What a part says at its end: whether others have still to do theirs."""
    return f"part {part}; " + (f"{left:,} {unit} of other parts are open" if left else "every part is done")
