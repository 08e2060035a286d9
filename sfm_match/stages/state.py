"""What a workspace holds: features and matches that are up to date, and how to go through them.

A stage finds this state once and hands it to the next one (`stages.base.Job`). Whoever reads features or matches - the
database, an export, a report - goes through `iter_features` and `listed_matches.iter_matches`.
"""

import dataclasses
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import NothingDone
from sfm_match.features.extractor import ROTATIONS
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.job.log import LOGGER
from sfm_match.job.workspace import Workspace
from sfm_match.store.columns import Column, Groups, Names, dense
from sfm_match.store.features import Features, UnitIndex, read_features, read_index, unit_path
from sfm_match.store.kept_state import digest_of, is_kept, keep, kept
from sfm_match.store.matches import BLOCK_FILE, read_head
from sfm_match.store.pair_table import PairTable
from sfm_match.store.pairs import read_pair_table
from sfm_match.store.shard import ShardError, fingerprint, set_aside, sha256_of

NamedFeatures = tuple[str, Features]
S = TypeVar("S", "FeatureSet", "MatchSet")
_NONE = -1  # keypoints of an image without features, where that is kept
_PAIRS, _OPEN_PAIRS = ("starts", "others"), ("open_starts", "open_others")  # of the tables that are kept


@dataclass(frozen=True)
class FeatureSet:
    """The features of a collection: which images have some, in which files, and why the others have none."""

    folder: Path  # of the files
    inputs: Mapping[str, Any]  # of the fingerprint: options and model
    counts: Mapping[str, int]  # image -> its keypoints
    units: Mapping[str, int]  # image -> the unit that holds its features
    signatures: Mapping[str, str]  # of the image files that have features
    failed: Mapping[str, str] = field(default_factory=dict)  # image -> reason
    open_units: Mapping[int, list[str]] = field(default_factory=dict)  # without a file that is up to date
    retry_units: Mapping[int, list[str]] = field(default_factory=dict)  # with an image that another try may cure
    images: Mapping[str, Header] = field(default_factory=dict)  # that can be used
    damaged: Sequence[ShardError] = ()  # files that cannot be used; their units are open

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.inputs)

    @property
    def rotations(self) -> int:
        """In how many rotations, by a quarter turn each, every image was described."""
        return ROTATIONS if self.inputs.get("turns") else 1

    @cached_property
    def digest(self) -> str:
        """Of the images that have features, and of the files that those were made from."""
        return digest_of(f"{name}\t{signature}" for name, signature in self.signed())

    def signed(self) -> Iterator[tuple[str, str]]:
        """Images that have features and the signatures of their files, by name."""
        signatures = self.signatures.items()
        return iter(signatures if isinstance(self.signatures, Column) else sorted(signatures))

    def by_unit(self, names: Iterable[str] | None = None) -> Mapping[int, list[str]]:
        """Which file holds which of these images' features, or of all that have any."""
        if names is None and isinstance(self.units, Column):
            return Groups(self.units.names, dense(self.units, _NONE))
        held: dict[int, list[str]] = {}
        for name in self.units if names is None else names:
            held.setdefault(self.units[name], []).append(name)
        return dict(sorted(held.items()))

    def headers(self, collection: Collection) -> Column[Header]:
        """Of the images that have features."""
        return collection.usable.where(keypoint_counts(self, collection) != _NONE)


def scan_features(workspace: Workspace, collection: Collection, inputs: Mapping[str, Any]) -> FeatureSet:
    """What the units' files hold, by their heads. A file of other inputs, or that is damaged, counts as absent."""
    known = _kept_features(workspace, collection, inputs)
    if known is not None:
        return known
    damaged: list[ShardError] = []

    def heads() -> Iterator[tuple[int, UnitIndex]]:  # one at a time: they hold all names once more
        for unit in collection.units():
            path = unit_path(workspace.features, unit)
            try:
                if path.exists():
                    yield unit, read_index(path)
            except ShardError as error:
                damaged.append(error)

    found = with_units(_without_units(workspace, collection, inputs), collection, heads())
    return dataclasses.replace(found, damaged=tuple(damaged))


def _without_units(workspace: Workspace, collection: Collection, inputs: Mapping[str, Any]) -> FeatureSet:
    units = collection.units()
    return FeatureSet(workspace.features, inputs, {}, {}, {}, collection.errors, units, images=collection.usable)


def keypoint_counts(found: FeatureSet, collection: Collection) -> NDArray[np.int32]:
    """(I,) keypoints of every image, in the order of their names; -1 of one without features."""
    names = collection.names
    if isinstance(found.counts, Column) and found.counts.names is names:
        return dense(found.counts, _NONE).astype(np.int32)
    counts = np.full(len(names), _NONE, np.int32)
    for name, count in found.counts.items():
        place = names.find(name)
        if place is not None:
            counts[place] = count
    return counts


def with_units(before: FeatureSet, collection: Collection, heads: Iterable[tuple[int, UnitIndex]]) -> FeatureSet:
    """The same with what these files hold: those of other inputs, or of images that have changed, hold nothing.

    Args:
        before: what was known. It is not changed.
        collection: the images.
        heads: units, and the heads of their files.
    """
    counts, failed = keypoint_counts(before, collection), dict(before.failed)
    open_units, retry_units = dict.fromkeys(before.open_units), dict.fromkeys(before.retry_units)
    every = collection.units()
    for unit, head in heads:
        places = every.places(unit).tolist()
        names = [collection.names[place] for place in places]
        signatures = {name: collection.signatures[place] for name, place in zip(names, places, strict=True)}
        if head.fingerprint != before.fingerprint or any(head.signatures.get(n) != s for n, s in signatures.items()):
            continue
        open_units.pop(unit, None)
        retry_units.pop(unit, None)
        if not head.retry.isdisjoint(names):
            retry_units[unit] = None
        for name, place in zip(names, places, strict=True):
            failed.pop(name, None)
            counts[place] = head.counts.get(name, _NONE)
            if name not in head.counts:
                failed[name] = head.failed[name]
    return _with_counts(before, collection, counts, failed, open_units, retry_units)


def _with_counts(
    before: FeatureSet,
    collection: Collection,
    counts: NDArray[np.int32],
    failed: Mapping[str, str],
    open_units: Iterable[int],
    retry_units: Iterable[int],
) -> FeatureSet:
    """The same with these keypoints of every image of the collection, -1 of one without features."""
    names, units, here = collection.names, collection.units(), counts != _NONE
    return dataclasses.replace(
        before,
        counts=Column(names, array("i", counts.tobytes()), here),
        units=Column(names, collection.unit_numbers, here),
        signatures=Column(names, collection.signatures, here),
        failed=failed,
        open_units=units.only(open_units),
        retry_units=units.only(retry_units),
        damaged=(),
    )


def keep_features(workspace: Workspace, collection: Collection, found: FeatureSet) -> None:
    """Notes what the files hold, so that the next command need not read all their heads."""
    inputs = _inputs_of_features(collection, found.inputs)
    if not _may_keep(workspace, found) or is_kept(workspace.features, inputs):
        return
    lost = {name: why for name, why in found.failed.items() if name in collection.usable}
    keep(
        workspace.features,
        inputs,
        {
            "counts": keypoint_counts(found, collection)[collection.usable.here],
            "open": np.array(list(found.open_units), np.int64),
            "retry": np.array(list(found.retry_units), np.int64),
            "failed": list(lost),
            "reasons": list(lost.values()),
        },
    )


def _kept_features(workspace: Workspace, collection: Collection, inputs: Mapping[str, Any]) -> FeatureSet | None:
    known = kept(workspace.features, _inputs_of_features(collection, inputs))
    if known is None:
        return None
    empty = _without_units(workspace, collection, inputs)
    counts = np.full(len(collection.names), _NONE, np.int32)
    counts[collection.usable.here] = known["counts"]
    failed = {**empty.failed, **dict(zip(known["failed"], known["reasons"], strict=True))}
    return _with_counts(empty, collection, counts, failed, known["open"].tolist(), known["retry"].tolist())


def _inputs_of_features(collection: Collection, inputs: Mapping[str, Any]) -> list[str]:
    return [fingerprint(inputs), collection.digest]


def _may_keep(workspace: Workspace, found: "FeatureSet | MatchSet") -> bool:
    """Whether this process is alone in the workspace, and nothing of what is there is to be moved aside."""
    return workspace.locked and not workspace.shared and not found.damaged


def whole(found: S) -> S:
    """The features or matches themselves. Raises ShardError where a file is damaged."""
    if found.damaged:
        raise found.damaged[0]
    return found


def move_aside(damaged: Iterable[ShardError]) -> None:
    """Takes damaged files out of the way, with a line each, so that they are made again. The workspace is locked."""
    for error in damaged:
        with suppress(FileNotFoundError):
            aside = set_aside(error.path)
            LOGGER.warning("%s: damaged (%s); moved to %s and made again", error.path, error.reason, aside.name)


def recorded_features(workspace: Workspace, collection: Collection) -> FeatureSet:
    """What there is of the features that the last `extract` was to make. Raises NothingDone where it never ran."""
    inputs = workspace.read_record().get("extract")
    if inputs is None:
        raise NothingDone(f"{workspace.folder}: no features yet; run `sfm-match extract` first")
    return scan_features(workspace, collection, inputs)


def all_extracted(workspace: Workspace, features: FeatureSet) -> FeatureSet:
    """The features themselves. Raises ShardError or NothingDone where some units are damaged or still open."""
    if whole(features).open_units:
        missing = sum(map(len, features.open_units.values()))
        raise NothingDone(f"{workspace.folder}: {missing} images are not extracted; run `sfm-match extract` again")
    return features


def iter_features(
    features: FeatureSet, names: Iterable[str] | None = None, *, descriptors: bool = True
) -> Iterator[NamedFeatures]:
    """Features of some images, or of all that have any, file by file.

    Args:
        features: what there is.
        names: of images that have features.
        descriptors: without them, what is given has none, and they are not read.

    Raises:
        ShardError: a file cannot be read.
    """
    for unit, mine in features.by_unit(names).items():
        sizes = {name: (header.width, header.height) for name in mine if (header := features.images.get(name))}
        yield from read_features(unit_path(features.folder, unit), mine, descriptors=descriptors, sizes=sizes).items()


@dataclass(frozen=True)
class MatchSet:
    """The matches of a list of pairs: which pairs have some, in which files, and which are still to be matched."""

    inputs: Mapping[str, Any]  # of the fingerprint, beside the features
    fingerprint: str
    names: Names  # of the collection
    pairs: PairTable  # of pairs.txt, of which both images have features: places in the names
    open_pairs: PairTable  # those without matches
    passed_over: int  # pairs of pairs.txt of images without features
    files: frozenset[str]  # names of the files that are up to date
    folder: Path  # of the files
    damaged: Sequence[ShardError] = ()  # files that cannot be used

    @property
    def paths(self) -> list[Path]:
        """Of the files, in order."""
        return [self.folder / name for name in sorted(self.files)]

    def with_blocks(self, paths: Iterable[Path]) -> "MatchSet":
        """The same when the open pairs are matched, in these files."""
        files = self.files | {path.name for path in paths}
        none = PairTable.of_codes(np.empty(0, np.int64), len(self.names))
        return dataclasses.replace(self, open_pairs=none, files=files, damaged=())


def scan_matches(
    workspace: Workspace, collection: Collection, features: FeatureSet, inputs: Mapping[str, Any]
) -> MatchSet:
    """Compares `pairs.txt` with the files of matches. A file of other inputs, or that is damaged, is absent.

    Raises:
        NothingDone, UsageError: there are no pairs, or they are those of other images.
    """
    expected = fingerprint([inputs, features.fingerprint])
    names = collection.names
    known = kept(workspace.matches, _inputs_of_matches(workspace, names, features, expected))
    if known is not None:
        (passed_over,) = known["passed_over"].tolist()
        pairs, left = (PairTable(known[starts], known[others]) for starts, others in (_PAIRS, _OPEN_PAIRS))
        return MatchSet(inputs, expected, names, pairs, left, passed_over, frozenset(known["files"]), workspace.matches)
    listed = read_pair_table(workspace.pairs, names)
    has_features = keypoint_counts(features, collection) != _NONE
    pairs = listed if has_features.all() else listed.among(has_features)
    rank = Column(names, range(len(names)))
    current, damaged, matched = set[str](), [], np.zeros(len(pairs), bool)
    for path in sorted(workspace.matches.glob("*.h5")):
        try:
            head = read_head(path)
        except ShardError as error:
            if BLOCK_FILE.fullmatch(path.name):  # others are not ours
                damaged.append(error)
            continue
        if head.fingerprint == expected:
            current.add(path.name)
            numbers = pairs.numbers(head.places(rank, features.signatures))
            matched[numbers[numbers >= 0]] = True
    passed_over, left = len(listed) - len(pairs), pairs.where(~matched)
    files = frozenset(current)
    return MatchSet(inputs, expected, names, pairs, left, passed_over, files, workspace.matches, tuple(damaged))


def keep_matches(workspace: Workspace, features: FeatureSet, found: MatchSet) -> None:
    """Notes what the files hold, so that the next command need not read all their heads."""
    if not _may_keep(workspace, found):
        return
    inputs = _inputs_of_matches(workspace, found.names, features, found.fingerprint)
    if not is_kept(workspace.matches, inputs):
        arrays: dict[str, NDArray[Any] | list[str]] = {
            "passed_over": np.array([found.passed_over], np.int64),
            "files": sorted(found.files),
        }
        for (starts, others), table in ((_PAIRS, found.pairs), (_OPEN_PAIRS, found.open_pairs)):
            arrays |= {starts: table.starts, others: table.others}
        keep(workspace.matches, inputs, arrays)


def _inputs_of_matches(workspace: Workspace, names: Names, features: FeatureSet, expected: str) -> list[str]:
    pairs = sha256_of(workspace.pairs) if workspace.pairs.is_file() else ""
    return [expected, digest_of(names), features.digest, pairs]


def recorded_matches(workspace: Workspace, collection: Collection, features: FeatureSet) -> MatchSet:
    """What there is of the matches that the last `match` was to make. Raises NothingDone where it never ran."""
    inputs = workspace.read_record().get("match")
    if inputs is None:
        raise NothingDone(f"{workspace.folder}: no matches yet; run `sfm-match match` first")
    return scan_matches(workspace, collection, features, inputs)


def all_matched(workspace: Workspace, matches: MatchSet) -> MatchSet:
    """The matches themselves. Raises ShardError or NothingDone where some are damaged or still to be matched."""
    if left := len(whole(matches).open_pairs):
        raise NothingDone(f"{workspace.folder}: {left:,} pairs are not matched; run `sfm-match match`")
    return matches
