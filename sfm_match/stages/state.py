"""What a workspace holds: features and matches that are up to date, and how to go through them.

A stage finds this state once and hands it to the next one (`stages.base.Job`). Whoever reads features or matches - the
database, an export, a report - goes through `iter_features` and `iter_matches`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from sfm_match.store.features import Features, UnitIndex, read_features, read_index, unit_path
from sfm_match.store.matches import BLOCK_FILE, BlockHead, Matches, read_head, read_matches
from sfm_match.store.pairs import read_pairs
from sfm_match.store.shard import ShardError, fingerprint, set_aside

NamedFeatures = tuple[str, Features]
S = TypeVar("S", "FeatureSet", "MatchSet")
NamedMatches = tuple[str, str, Matches]


@dataclass(frozen=True)
class FeatureSet:
    """The features of a collection: which images have some, in which files, and why the others have none."""

    folder: Path  # of the files
    inputs: Mapping[str, Any]  # of the fingerprint: options and model
    counts: dict[str, int]  # image -> its keypoints
    units: dict[str, int]  # image -> the unit that holds its features
    signatures: dict[str, str]  # of the image files that have features
    failed: dict[str, str] = field(default_factory=dict)  # image -> reason
    open_units: dict[int, list[str]] = field(default_factory=dict)  # without a file that is up to date
    retry_units: dict[int, list[str]] = field(default_factory=dict)  # with an image that another try may cure
    heads: Mapping[int, UnitIndex] = field(default_factory=dict)  # of the files that are up to date
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # width and height of images, raw pixels
    damaged: Sequence[ShardError] = ()  # files that cannot be used; their units are open

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.inputs)

    @property
    def rotations(self) -> int:
        """In how many rotations, by a quarter turn each, every image was described."""
        return ROTATIONS if self.inputs.get("turns") else 1

    def by_unit(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Which file holds which of these images' features."""
        held: dict[int, list[str]] = {}
        for name in names:
            held.setdefault(self.units[name], []).append(name)
        return dict(sorted(held.items()))

    def headers(self, collection: Collection) -> dict[str, Header]:
        """Of the images that have features."""
        return {name: header for name, header in collection.usable.items() if name in self.counts}


def scan_features(workspace: Workspace, collection: Collection, inputs: Mapping[str, Any]) -> FeatureSet:
    """Reads the head of every unit's file. A file of other inputs, or that is damaged, counts as absent."""
    heads, damaged = {}, []
    for unit in collection.units():
        path = unit_path(workspace.features, unit)
        try:
            if path.exists():
                heads[unit] = read_index(path)
        except ShardError as error:
            damaged.append(error)
    return feature_set(workspace, collection, inputs, heads, damaged)


def feature_set(
    workspace: Workspace,
    collection: Collection,
    inputs: Mapping[str, Any],
    heads: Mapping[int, UnitIndex],
    damaged: Sequence[ShardError] = (),
) -> FeatureSet:
    """What these files hold of the collection.

    Args:
        workspace: of the job.
        collection: its images.
        inputs: of the features' fingerprint.
        heads: of files, by unit.
        damaged: files that cannot be used.
    """
    counts: dict[str, int] = {}
    units: dict[str, int] = {}
    failed = {name: record.error for name, record in collection.records.items() if record.error is not None}
    signatures = {name: record.signature for name, record in collection.records.items()}
    open_units, retry_units, current = {}, {}, {}
    expected = fingerprint(inputs)
    for unit, names in collection.units().items():
        head = heads.get(unit)
        if (
            head is None
            or head.fingerprint != expected
            or any(head.signatures.get(name) != signatures[name] for name in names)
        ):
            open_units[unit] = names
            continue
        current[unit] = head
        if not head.retry.isdisjoint(names):
            retry_units[unit] = names
        for name in names:
            if name in head.counts:
                counts[name], units[name] = head.counts[name], unit
            else:
                failed[name] = head.failed[name]
    described = {name: signatures[name] for name in counts}
    sizes = {name: (header.width, header.height) for name, header in collection.usable.items()}
    return FeatureSet(
        workspace.features,
        inputs,
        counts,
        units,
        described,
        failed,
        open_units,
        retry_units,
        current,
        sizes,
        damaged,
    )


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
    for unit, mine in features.by_unit(features.units if names is None else names).items():
        path = unit_path(features.folder, unit)
        yield from read_features(path, mine, descriptors=descriptors, sizes=features.sizes).items()


@dataclass(frozen=True)
class MatchSet:
    """The matches of a list of pairs: which pairs have some, in which files, and which are still to be matched."""

    inputs: Mapping[str, Any]  # of the fingerprint, beside the features
    fingerprint: str
    names: list[str]  # of the collection
    listed: NDArray[np.int64]  # (P, 2) pairs of pairs.txt, places in `names`
    usable: NDArray[np.int64]  # (Q, 2) those of which both images have features
    open_pairs: NDArray[np.int64]  # (R, 2) those without matches
    heads: Mapping[Path, BlockHead]  # of the files that are up to date
    damaged: Sequence[ShardError] = ()  # files that cannot be used

    def with_blocks(self, heads: Mapping[Path, BlockHead]) -> "MatchSet":
        """The same when the open pairs are matched, in these files."""
        none = np.empty((0, 2), np.int64)
        return dataclasses.replace(self, open_pairs=none, heads={**self.heads, **heads}, damaged=())


def scan_matches(
    workspace: Workspace, collection: Collection, features: FeatureSet, inputs: Mapping[str, Any]
) -> MatchSet:
    """Compares `pairs.txt` with the files of matches. A file of other inputs, or that is damaged, is absent.

    Raises:
        NothingDone, UsageError: there are no pairs, or they are those of other images.
    """
    expected = fingerprint([inputs, features.fingerprint])
    names = list(collection.records)
    listed = read_pairs(workspace.pairs, names)
    has_features = np.array([name in features.counts for name in names])
    usable = listed[has_features[listed].all(axis=1)]
    rank = {name: i for i, name in enumerate(names)}
    heads, damaged = {}, []
    for path in sorted(workspace.matches.glob("*.h5")):
        try:
            head = read_head(path)
        except ShardError as error:
            if BLOCK_FILE.fullmatch(path.name):  # others are not ours
                damaged.append(error)
            continue
        if head.fingerprint == expected:
            heads[path] = head
    codes = [head.pair_codes(rank, features.signatures) for head in heads.values()]
    matched = np.concatenate([np.empty(0, np.int64), *codes])
    open_pairs = usable[~np.isin(usable @ (len(names), 1), matched)]
    return MatchSet(inputs, expected, names, listed, usable, open_pairs, heads, damaged)


def recorded_matches(workspace: Workspace, collection: Collection, features: FeatureSet) -> MatchSet:
    """What there is of the matches that the last `match` was to make. Raises NothingDone where it never ran."""
    inputs = workspace.read_record().get("match")
    if inputs is None:
        raise NothingDone(f"{workspace.folder}: no matches yet; run `sfm-match match` first")
    return scan_matches(workspace, collection, features, inputs)


def all_matched(workspace: Workspace, matches: MatchSet) -> MatchSet:
    """The matches themselves. Raises ShardError or NothingDone where some are damaged or still to be matched."""
    if len(whole(matches).open_pairs):
        left = len(matches.open_pairs)
        raise NothingDone(f"{workspace.folder}: {left:,} pairs are not matched; run `sfm-match match`")
    return matches


def read_pairs_of(path: Path, head: BlockHead, features: FeatureSet) -> list[Matches]:
    """Of each pair of a file: no match is of a keypoint that the features do not have. Raises ShardError."""
    current = {name for name, was in head.images.items() if features.signatures.get(name) == was}
    return read_matches(path, {name: features.counts[name] for name in current})


def iter_matches(matches: MatchSet, features: FeatureSet) -> Iterator[NamedMatches]:
    """The matches of the pairs of `pairs.txt`, file by file: both names, and what was found; each pair once.

    Raises:
        ShardError: a file cannot be read.
    """
    for path, head, numbers in listed_blocks(matches, features):
        yield from named_matches(path, head, numbers, features)


def named_matches(
    path: Path, head: BlockHead, numbers: NDArray[np.int64], features: FeatureSet
) -> Iterator[NamedMatches]:
    """Of some pairs of a file. Raises ShardError."""
    found, names = read_pairs_of(path, head, features), list(head.images)
    for number in numbers:
        i, j = head.pairs[number]
        yield names[i], names[j], found[number]


def listed_blocks(matches: MatchSet, features: FeatureSet) -> Iterator[tuple[Path, BlockHead, NDArray[np.int64]]]:
    """Files, and the numbers of their pairs that `pairs.txt` lists; each pair once."""
    rank = {name: i for i, name in enumerate(matches.names)}
    listed = np.unique(matches.listed @ (len(rank), 1))
    given = np.zeros(len(listed), bool)
    for path, head in sorted(matches.heads.items()):  # not in the order in which they came
        codes = head.pair_codes(rank, features.signatures)
        # not np.isin, which would sort all pairs again for each file
        places = np.searchsorted(listed, codes).clip(max=len(listed) - 1)
        wanted = (listed[places] == codes) & ~given[places]  # a part that was taken for dead may match a pair again
        given[places[wanted]] = True
        yield path, head, np.flatnonzero(wanted)
