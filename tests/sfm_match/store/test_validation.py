"""Files of features and matches that are valid HDF5 and say what cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sfm_match.store.features import Features, UnitResult, check_unit, read_features, read_index, write_unit
from sfm_match.store.matches import Matches, PairBlock, check_block, read_head, read_matches, write_block
from sfm_match.store.shard import ShardError

SIZES = {"a": (100, 80), "b": (60, 40)}
Change = Callable[[h5py.File], None]


def unit(path: Path) -> Path:
    rng = np.random.default_rng(0)
    features = {
        name: Features(
            rng.uniform(0, size, (20, 2)).astype(np.float32),
            np.linspace(1, 0.5, 20, dtype=np.float32),
            rng.normal(size=(20, 8)).astype(np.float16),
        )
        for name, size in SIZES.items()
    }
    write_unit(path, UnitResult(features, {"c": "gone"}, dict.fromkeys("abc", "1:1")), "print", 8)
    return path


def block(path: Path) -> Path:
    found = Matches(np.arange(20, dtype=np.uint32).reshape(-1, 2), np.linspace(0, 1, 10, dtype=np.float16))
    none = Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float16))
    images = dict.fromkeys("abc", "1:1")
    write_block(path, PairBlock("print", images, np.array([(0, 1), (1, 2)], np.int32), [found, none]))
    return path


def without_checksums(path: Path, change: Change) -> Path:
    """The file as before there were checksums, changed."""
    path.write_bytes(path.read_bytes()[512:])
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 2
        change(file)
    return path


def put(name: str, at: object, value: object) -> Change:
    def change(file: h5py.File) -> None:
        file[name][at] = value

    return change


def replaced(name: str, values: object) -> Change:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = values

    return change


def scored(value: float) -> Change:
    """With probabilities as until schema 4."""

    def change(file: h5py.File) -> None:
        del file["below_one"]
        file["scores"] = np.full(10, value, np.float16)

    return change


def nothing(_: h5py.File) -> None:
    return


def test_files_of_before_are_read(tmp_path: Path) -> None:
    now, before = unit(tmp_path / "0.h5"), without_checksums(unit(tmp_path / "1.h5"), nothing)
    assert read_index(before) == read_index(now)
    np.testing.assert_array_equal(read_features(before)["b"].descriptors, read_features(now)["b"].descriptors)
    check_unit(before, SIZES)
    check_block(without_checksums(block(tmp_path / "2.h5"), nothing), {"a": 20, "b": 20, "c": 0})


def test_matches_in_one_dataset_are_read(tmp_path: Path) -> None:
    def as_until_schema_3(file: h5py.File) -> None:
        indices = read_matches(now)[0].indices
        del file["first_steps"], file["second"]
        file["matches"] = indices.astype(np.uint16)

    now = block(tmp_path / "0.h5")
    before = without_checksums(block(tmp_path / "1.h5"), as_until_schema_3)
    check_block(before, {"a": 20, "b": 20, "c": 0})
    np.testing.assert_array_equal(read_matches(before)[0].indices, read_matches(now)[0].indices)


def test_probabilities_as_such_are_read(tmp_path: Path) -> None:
    before = without_checksums(block(tmp_path / "0.h5"), scored(0.25))
    np.testing.assert_array_equal(read_matches(before)[0].scores, np.full(10, 0.25, np.float16))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("offsets", 1, 41), "offsets do not lead from 0 to 40"),
        (put("offsets", 1, -1), "offsets"),
        (put("offsets", 2, 39), "offsets"),
        (put("keypoints", (3, 0), np.nan), "keypoints of a are outside the image"),
        (put("keypoints", (3, 1), np.inf), "keypoints of a"),
        (put("keypoints", (23, 0), 62), "keypoints of b"),
        (put("keypoints", (3, 0), -1e5), "keypoints of a"),
        (put("scores", 30, np.inf), "scores of b are not finite"),
        (put("descriptors", (30, 1), np.nan), "descriptors of b are not finite"),
        (put("names", 1, "a"), "a name is there twice"),
        (put("failed_names", 0, "a"), "a name is there twice"),
        (replaced("keypoints", np.zeros((40, 3), np.float32)), "keypoints is float32 of shape"),
        (replaced("keypoints", np.zeros((40, 2), np.float64)), "keypoints is float64"),
        (replaced("offsets", np.zeros(2, np.int64)), "offsets is int64 of shape"),
        (replaced("names", 5), ""),
        (replaced("scores", np.zeros(39, np.float32)), "scores is float32 of shape"),
        (lambda file: file.pop("signatures"), "signatures"),
        (lambda file: file.attrs.pop("fingerprint"), "fingerprint"),
        (lambda file: (file.create_group("x") and file.move("x", "y")) or file.pop("scores"), "scores"),
    ],
)
def test_features_that_cannot_be(tmp_path: Path, change: Change, reason: str) -> None:
    path = without_checksums(unit(tmp_path / "0.h5"), change)
    with pytest.raises(ShardError, match=f"0.h5: damaged .*{reason}.*`sfm-match extract` makes it again"):
        check_unit(path, SIZES)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("second", 4, 21), "matches are of keypoints that do not exist"),
        (put("first_steps", 4, 65_000), "matches are of keypoints"),
        (put("below_one", 4, 1921), "scores are not probabilities"),
        (put("below_one", 4, 65_000), "scores are not"),
        (scored(np.nan), "scores are not probabilities"),
        (scored(1.5), "scores are not"),
        (scored(-0.5), "scores are not"),
        (put("pairs", (1, 1), 3), "pairs are not of its images"),
        (put("pairs", (1, 1), -1), "pairs are not of its images"),
        (put("pairs", (1, 1), 1), "pairs are not of its images"),
        (put("pairs", 1, (1, 0)), "a pair is there twice"),
        (put("offsets", 1, 11), "offsets"),
        (replaced("matches", np.zeros((10, 3), np.uint32)), "matches is uint32 of shape"),
        (replaced("second", np.zeros(10, np.int64)), "second is int64"),
        (replaced("second", np.zeros(10, np.uint32)), "second is uint32 of shape"),
        (replaced("first_steps", np.zeros(9, np.uint16)), "first_steps is uint16 of shape"),
        (replaced("below_one", np.zeros(9, np.uint16)), "first_steps is uint16 of shape"),
        (replaced("below_one", np.zeros(10, np.float16)), "below_one is float16"),
        (replaced("matches", np.zeros((10, 2), np.int64)), "matches is int64"),
        (replaced("pairs", np.zeros((5, 2), np.int32)), "offsets is int64 of shape"),
    ],
)
def test_matches_that_cannot_be(tmp_path: Path, change: Change, reason: str) -> None:
    path = without_checksums(block(tmp_path / "0.h5"), change)
    with pytest.raises(ShardError, match=f"0.h5: damaged .*{reason}.*`sfm-match match` makes it again"):
        check_block(path, {"a": 21, "b": 21, "c": 21})


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"scaleoffset": 0}])
def test_a_dataset_longer_than_the_file(tmp_path: Path, how: dict[str, Any]) -> None:
    def change(file: h5py.File) -> None:
        for name in ("first_steps", "second", "below_one"):
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, shape=(10**12,), dtype=dtype, chunks=(1000,), **how)

    path = without_checksums(block(tmp_path / "0.h5"), change)
    with pytest.raises(ShardError, match="longer than what is stored"):
        read_matches(path)


def test_long_strings_in_few_bytes(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["names"]
        dtype = h5py.string_dtype(length=1 << 20)
        file.create_dataset("names", shape=(3,), dtype=dtype, chunks=(1,), compression="gzip")[0] = "a"

    path = without_checksums(block(tmp_path / "0.h5"), change)
    with pytest.raises(ShardError, match="longer than what is stored"):
        read_matches(path)


def test_another_program_wrote_into_a_file_with_checksums(tmp_path: Path) -> None:
    path = block(tmp_path / "0.h5")
    with h5py.File(path, "r+") as file:
        file["second"][0] = 7
    with pytest.raises(ShardError, match="not as it was written"):
        check_block(path)
    with pytest.raises(ShardError, match="not as it was written"):
        read_head(path)
