"""hloc's files into a workspace: features and matches of any extractor, for `import` and `reconstruct`.

What is read of `features.h5` and `matches.h5` is what hloc's own readers take (`get_keypoints`, `find_pair`,
`get_matches`): keypoints with the centre of the top-left pixel at (0, 0), `matches0` with -1 for none, groups by
`names_to_pair` in either order, also in its earlier form. Descriptors and scores are taken where they are there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pairs import PairsError
from pairs.named import read_lines
from sfm_match.errors import NothingDone, UsageError, quoted
from sfm_match.formats.hloc import pair_key, pair_keys
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.images.reasons import write_failed
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import FROM, Workspace
from sfm_match.stages.match import remove_useless
from sfm_match.stages.pair_blocks import plan_blocks
from sfm_match.stages.state import FeatureSet, scan_features, scan_matches
from sfm_match.store.features import Features, UnitResult, unit_path, write_unit
from sfm_match.store.matches import Matches, PairBlock, write_block
from sfm_match.store.pairs import write_pairs_file
from sfm_match.store.shard import sha256_of
from sfm_match.store.validation import check_finite, check_keypoints

HLOC = "hloc"
ALGORITHM = 1  # raise it when the same files come to give other features or matches

Pair = tuple[str, str]


@dataclass(frozen=True)
class HlocFiles:
    """What hloc left of a job."""

    features: Path  # of extract_features
    matches: Path  # of match_features
    pairs: Path  # two names a line
    size: int  # long side of an image when its features were extracted, pixels: hloc's resize_max


def read_hloc(workspace: Workspace, collection: Collection, files: HlocFiles, *, overwrite: bool) -> list[StageReport]:
    """Writes features, pairs and matches as the stages would. What is up to date stays.

    Raises:
        UsageError: a file is not hloc's or does not fit the images, or results of another origin are there.
        NothingDone: none of the images has features, or no pair of those that have.
    """
    records: dict[str, dict[str, Any]] = {
        # the size as in the record of our own features: keypoints are adjusted at it
        "extract": {"features": _digest(files.features), "size": files.size, "reduced_decode": True},
        "pairs": {"pairs": _digest(files.pairs)},
        "match": {"matches": _digest(files.matches)},
    }
    for stage, record in records.items():
        record |= {FROM: HLOC, "algorithm": ALGORITHM}
        workspace.check(stage, record, overwrite=overwrite)
    listed = _read_pairs(files.pairs, list(collection.records))
    collection.save(workspace)
    # each record when its file was read: one that cannot be read may be replaced by another
    features, extracted = _read_features(workspace, collection, files.features, records["extract"])
    workspace.write_record("extract", records["extract"])
    paired = _write_pairs(workspace, collection, files.pairs, listed)
    workspace.write_record("pairs", records["pairs"])
    matched = _read_all_matches(workspace, collection, features, files.matches, records["match"], listed)
    workspace.write_record("match", records["match"])
    return [extracted, paired, matched]


def _digest(path: Path) -> str:
    if not path.is_file():
        raise UsageError(f"--from hloc: {path}: no such file")
    return sha256_of(path)


def _read_pairs(path: Path, names: list[str]) -> list[Pair]:
    """The pairs of a list, each once, in the order of their names as it is first listed.

    Raises:
        UsageError: a line is not two images of the folder, or hloc has one name for two pairs.
    """
    known, listed = set(names), dict[frozenset[str], Pair]()
    try:
        lines = read_lines(path)
    except PairsError as error:
        raise UsageError(f"--from hloc: {error}") from None
    for number, line in enumerate(lines, 1):
        found = line.split()
        if not found:
            continue
        if len(found) != 2 or not known.issuperset(found):
            raise UsageError(f"{path}, line {number}: not two images of the folder: {quoted(line)}")
        if found[0] != found[1]:
            listed.setdefault(frozenset(found), (found[0], found[1]))
    pairs = list(listed.values())
    if not pairs:
        raise NothingDone(f"{path}: no pair in it")
    pair_keys(pairs, "--from hloc")
    return pairs


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Raises UsageError where it is no HDF5 file, or has not the datasets that hloc writes."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UsageError(f"--from hloc: {path}: not readable as HDF5") from error
    with file:
        try:
            yield file
        except KeyError as error:
            raise UsageError(f"--from hloc: {path}: not as hloc writes it ({quoted(error.args[0])})") from error
        except OSError as error:  # data that is cut off, or of a filter that is not there
            raise UsageError(f"--from hloc: {path}: damaged ({quoted(' '.join(str(error).split()))})") from error


def _array(group: Any, name: str, shape: str, where: str) -> NDArray[Any]:
    """A dataset of numbers.

    Args:
        group: that it is in.
        name: of the dataset.
        shape: its axes, a letter each, for messages.
        where: names the group.

    Raises:
        KeyError: it is not there.
        UsageError: it is something else, of other axes, or not of finite numbers.
    """
    if not isinstance(group, h5py.Group):
        raise UsageError(f"{where}: a dataset, expected a group")
    dataset = group[name]
    fits = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "iuf" and dataset.ndim == len(shape.split(","))
    if not fits:
        raise UsageError(f"{where}: {name}: expected numbers ({shape}), found {quoted(dataset)}")
    values: NDArray[Any] = dataset[()]
    if not np.isfinite(values).all():
        raise UsageError(f"{where}: {name}: not all finite numbers")
    return values


def _read_features(
    workspace: Workspace, collection: Collection, path: Path, inputs: Mapping[str, Any]
) -> tuple[FeatureSet, StageReport]:
    """Writes the units that are open. Returns what there is then."""
    clock = Clock()
    before = scan_features(workspace, collection, inputs)
    with _opened(path) as file:
        width = _width(file, collection)
        for unit, names in before.open_units.items():
            found = {name: _features(file, name, collection.usable[name], width) for name in names if name in file}
            missing = {name: f"not in {path.name}" for name in names if name not in found}
            signatures = {name: collection.records[name].signature for name in (*found, *missing)}
            result = UnitResult(found, missing, signatures)
            write_unit(unit_path(workspace.features, unit), result, before.fingerprint, width)
    features = scan_features(workspace, collection, inputs)
    write_failed(workspace, features.failed)
    done = sum(name in features.counts for names in before.open_units.values() for name in names)
    return features, StageReport(
        "extract",
        "images",
        done=done,
        cached=len(features.counts) - done,
        failed=len(features.failed),
        seconds=clock.seconds,
        detail=f"from {path}",
        facts={"keypoints": sum(features.counts.values()), "total": len(features.counts)},
    )


def _width(file: h5py.File, collection: Collection) -> int:
    """Of a row of descriptors; 0 without.

    Raises:
        NothingDone: the file has none of the images.
    """
    first = next((name for name in collection.usable if name in file), None)
    if first is None:
        there = file.visititems(lambda _, one: one.parent.name[1:] if isinstance(one, h5py.Dataset) else None)
        raise NothingDone(
            f"{file.filename}: none of the {len(collection.usable)} images of {collection.folder} is in it"
            + (f"; it has {there}, ..." if there else "")
        )
    group = file[first]
    if not isinstance(group, h5py.Group) or "descriptors" not in group:
        return 0
    return len(_array(group, "descriptors", "D, N", f"--from hloc: {file.filename}: {first}"))


def _features(file: h5py.File, name: str, header: Header, width: int) -> Features:
    """Of one image, in the order of the file, which matches refer to.

    Raises:
        UsageError: they are of a picture of another size, or not all of one kind.
    """
    group, where = file[name], f"--from hloc: {file.filename}: {name}"
    keypoints = _array(group, "keypoints", "N, 2", where).astype(np.float32) + np.float32(0.5)
    count = len(keypoints)
    told = tuple(_array(group, "image_size", "2", where)) if "image_size" in group else (header.width, header.height)
    if told != (header.width, header.height):
        size = quoted(" x ".join(map(str, told)))
        raise UsageError(
            f"{where}: features of a picture of {size} pixels, the photograph has {header.width} x {header.height} "
            "as it is stored; was it turned by its EXIF, or changed? Extract from the photographs as they are stored"
        )
    scores = _array(group, "scores", "N", where).astype(np.float32) if "scores" in group else np.ones(count, np.float32)
    described = _array(group, "descriptors", "D, N", where).T if width else np.empty((count, 0))
    if keypoints.shape != (count, 2) or scores.shape != (count,) or described.shape != (count, width):
        shapes = f"keypoints {keypoints.shape}, scores {scores.shape}, descriptors {described.T.shape}"
        raise UsageError(f"{where}: {shapes}; expected (N, 2), (N,), ({width}, N)")
    try:
        check_keypoints(name, keypoints, (header.width, header.height))
        check_finite("scores", scores)
        check_finite("descriptors", described)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    return Features(keypoints, scores, described.astype(np.float16))


def _write_pairs(workspace: Workspace, collection: Collection, path: Path, listed: list[Pair]) -> StageReport:
    """Writes `pairs.txt`."""
    clock, names = Clock(), list(collection.records)
    place = {name: i for i, name in enumerate(names)}
    count = write_pairs_file(workspace.pairs, names, [np.array([(place[a], place[b]) for a, b in listed], np.int32)])
    return StageReport("pairs", "pairs", done=count, seconds=clock.seconds, detail=f"from {path}")


def _read_all_matches(
    workspace: Workspace,
    collection: Collection,
    features: FeatureSet,
    path: Path,
    inputs: dict[str, Any],
    listed: list[Pair],
) -> StageReport:
    """Writes the pair blocks that are open."""
    clock = Clock()
    before = scan_matches(workspace, collection, features, inputs)
    if not len(before.pairs):
        raise NothingDone(f"{workspace.pairs}: no pair of images that both have features")
    remove_useless(workspace, before.files)
    first_listed = {frozenset(pair): pair for pair in listed}
    found = 0
    with _opened(path) as file:
        for plan in plan_blocks(workspace.matches, before.fingerprint, before.names, features, before.open_pairs):
            images, matches = list(plan.images), []
            for i, j in plan.pairs.tolist():
                pair = first_listed[frozenset((images[i], images[j]))]
                read = _matches(file, pair, features.counts)
                turned = pair[0] != images[i]
                matches.append(Matches(read.indices[:, ::-1], read.scores) if turned else read)
            write_block(plan.path, PairBlock(before.fingerprint, plan.images, plan.pairs, matches))
            found += sum(len(one.indices) for one in matches)
    return StageReport(
        "match",
        "pairs",
        done=len(before.open_pairs),
        cached=len(before.pairs) - len(before.open_pairs),
        seconds=clock.seconds,
        detail=f"from {path}",
        facts={"matches": found, "passed_over": before.passed_over},
    )


def _matches(file: h5py.File, pair: Pair, counts: Mapping[str, int]) -> Matches:
    """Of a pair, columns in its order, as hloc's `find_pair` and `get_matches` find them.

    Raises:
        UsageError: they are not there, or not of these features.
    """
    ways = [(one, pair_key(*one, separator)) for separator in ("/", "_") for one in (pair, pair[::-1])]
    names, key = next(((one, key) for one, key in ways if key in file), (pair, ""))
    if not key:
        raise UsageError(f"--from hloc: {file.filename}: no matches of {pair[0]}, {pair[1]}; matched with other pairs?")
    group, where = file[key], f"--from hloc: {file.filename}: {key}"
    places: NDArray[np.int64] = _array(group, "matches0", "N", where).astype(np.int64)
    rows = np.flatnonzero(places >= 0)
    if len(places) != counts[names[0]] or places.max(initial=-1) >= counts[names[1]]:
        raise UsageError(f"{where}: not of these features; matched with others?")
    scores = np.ones(len(rows))
    if "matching_scores0" in group:
        every = _array(group, "matching_scores0", "N", where)
        if len(every) != len(places):
            raise UsageError(f"{where}: {len(every):,} matching_scores0 for {len(places):,} matches0")
        scores = every[rows]
    indices = np.column_stack((rows, places[rows])).astype(np.uint32)
    probabilities = np.nan_to_num(scores).clip(0, 1).astype(np.float16)
    return Matches(indices if names == pair else indices[:, ::-1], probabilities)
