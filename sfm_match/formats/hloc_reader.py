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

from sfm_match.errors import NothingDone, UsageError
from sfm_match.formats.hloc import pair_key, pair_keys
from sfm_match.images.collection import Collection, write_failed
from sfm_match.images.files import Header
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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = line.split()
        if not found:
            continue
        if len(found) != 2 or not known.issuperset(found):
            raise UsageError(f"{path}, line {number}: not two images of the folder: {line}")
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
            raise UsageError(f"--from hloc: {path}: not as hloc writes it ({error.args[0]})") from error


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
    return file[first]["descriptors"].shape[0] if "descriptors" in file[first] else 0


def _features(file: h5py.File, name: str, header: Header, width: int) -> Features:
    """Of one image, in the order of the file, which matches refer to.

    Raises:
        UsageError: they are of a picture of another size, or not all of one kind.
    """
    group, where = file[name], f"--from hloc: {file.filename}: {name}"
    keypoints = group["keypoints"][()].astype(np.float32) + np.float32(0.5)
    count = len(keypoints)
    if "image_size" in group and tuple(group["image_size"][()]) != (header.width, header.height):
        size = " x ".join(map(str, group["image_size"][()]))
        raise UsageError(
            f"{where}: features of a picture of {size} pixels, the photograph has {header.width} x {header.height} "
            "as it is stored; was it turned by its EXIF, or changed? Extract from the photographs as they are stored"
        )
    scores = group["scores"][()].astype(np.float32) if "scores" in group else np.ones(count, np.float32)
    described = group["descriptors"][()].T if width else np.empty((count, 0))
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
    if not len(before.usable):
        raise NothingDone(f"{workspace.pairs}: no pair of images that both have features")
    remove_useless(workspace, before.heads)
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
        cached=len(before.usable) - len(before.open_pairs),
        seconds=clock.seconds,
        detail=f"from {path}",
        facts={"matches": found, "passed_over": len(before.listed) - len(before.usable)},
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
    group = file[key]
    places: NDArray[np.int64] = group["matches0"][()].astype(np.int64)
    rows = np.flatnonzero(places >= 0)
    if len(places) != counts[names[0]] or places.max(initial=-1) >= counts[names[1]]:
        raise UsageError(f"--from hloc: {file.filename}: {key}: not of these features; matched with others?")
    scores = group["matching_scores0"][()][rows] if "matching_scores0" in group else np.ones(len(rows))
    indices = np.column_stack((rows, places[rows])).astype(np.uint32)
    probabilities = np.nan_to_num(scores).clip(0, 1).astype(np.float16)
    return Matches(indices if names == pair else indices[:, ::-1], probabilities)
