"""What is packed comes back, for any content."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.store.features import Features, UnitResult, read_features, read_index, write_unit
from sfm_match.store.matches import Matches, PairBlock, read_block, read_head, write_block
from sfm_match.store.shard import open_shard

NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    max_size=6,
    unique=True,
)


def some_features(rng: np.random.Generator, count: int, dimension: int = 8) -> Features:
    return Features(
        rng.uniform(0, 4000, (count, 2)).astype(np.float32),
        rng.random(count).astype(np.float32),
        rng.normal(size=(count, dimension)).astype(np.float16),
    )


def assert_equal(a: Features, b: Features) -> None:
    for left, right in zip(vars(a).values(), vars(b).values(), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@given(names=NAMES, failed=NAMES, seed=st.integers(0, 99))
def test_features(tmp_path_factory: pytest.TempPathFactory, names: list[str], failed: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    failed = [name for name in failed if name not in names]
    signatures = {name: f"{len(name)}:1" for name in (*names, *failed)}
    features = {name: some_features(rng, int(rng.integers(0, 9))) for name in names}
    result = UnitResult(features, dict.fromkeys(failed, "why\nnot"), signatures, set(failed[:1]))
    path = tmp_path_factory.mktemp("f") / "0.h5"
    write_unit(path, result, "print", 8)
    index = read_index(path)
    assert index.fingerprint == "print"
    assert (index.failed, index.signatures, index.retry) == (result.failed, signatures, result.retry)
    assert index.counts == {name: len(f.keypoints) for name, f in result.features.items()}
    for name, stored in read_features(path).items():
        assert_equal(stored, features[name])


def test_features_of_some_images_without_descriptors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = {name: some_features(rng, 5) for name in ("a", "b", "c")}
    write_unit(tmp_path / "0.h5", UnitResult(stored, {}, dict.fromkeys(stored, "1:1")), "print", 8)
    read = read_features(tmp_path / "0.h5", ["c", "a"], descriptors=False)
    assert list(read) == ["c", "a"]
    assert read["c"].descriptors.shape == (0, 8)
    np.testing.assert_array_equal(read["c"].keypoints, stored["c"].keypoints)


@given(counts=st.lists(st.integers(0, 5), max_size=6), keypoints=st.sampled_from((99, 1 << 16, 1 << 20)))
def test_matches(tmp_path_factory: pytest.TempPathFactory, counts: list[int], keypoints: int) -> None:
    rng = np.random.default_rng(0)
    images = {f"{i}.jpg": f"{i}:1" for i in range(len(counts) + 1)}
    pairs = np.array([(i, i + 1) for i in range(len(counts))], np.int32).reshape(-1, 2)
    matches = [Matches(rng.integers(0, keypoints, (n, 2), np.uint32), rng.random(n).astype(np.float16)) for n in counts]
    path = tmp_path_factory.mktemp("m") / "0.h5"
    write_block(path, PairBlock("print", images, pairs, matches))
    tile, head = read_block(path), read_head(path)
    assert (tile.fingerprint, tile.images) == ("print", images) == (head.fingerprint, head.images)
    np.testing.assert_array_equal(tile.pairs, pairs)
    assert len(tile.matches) == len(matches)
    for read, written in zip(tile.matches, matches, strict=True):
        assert read.indices.dtype == np.uint32
        np.testing.assert_array_equal(read.indices, written.indices)
        np.testing.assert_allclose(read.scores, written.scores, rtol=0.004, atol=1e-6)  # 8 significant bits


def test_probabilities_keep_eight_bits(tmp_path: Path) -> None:
    every = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # that float16 has from 0 to 1
    indices = np.arange(2 * len(every), dtype=np.uint32).reshape(-1, 2)
    write_block(
        tmp_path / "0.h5",
        PairBlock("print", {"a": "1:1", "b": "1:1"}, np.array([[0, 1]], np.int32), [Matches(indices, every)]),
    )
    read = read_block(tmp_path / "0.h5").matches[0]
    np.testing.assert_array_equal(read.indices, indices)
    np.testing.assert_allclose(read.scores[every >= 1e-3], every[every >= 1e-3], rtol=0.004)
    assert (read.scores[0], read.scores[-1]) == (0, 1)
    assert len(np.unique(read.scores[every >= 0.5])) == 129


@pytest.mark.parametrize(("largest", "stored"), [(65535, "uint16"), (65536, "uint32")])
def test_indices_take_two_bytes_where_they_fit(largest: int, stored: str, tmp_path: Path) -> None:
    one = Matches(np.array([[0, largest]], np.uint32), np.ones(1, np.float16))
    pairs = np.array([[0, 1]], np.int32)
    write_block(tmp_path / "0.h5", PairBlock("print", {"a": "1:1", "b": "1:1"}, pairs, [one]))
    with open_shard(tmp_path / "0.h5", "match") as file:
        assert file["first_steps"].dtype == file["second"].dtype == stored
    assert read_block(tmp_path / "0.h5").matches[0].indices.tolist() == [[0, largest]]
