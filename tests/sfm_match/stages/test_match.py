"""Tiles: every pair once, standing ones kept, foreign ones gone."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.collection import Collection
from sfm_match.job.workspace import Workspace
from sfm_match.stages import pair_blocks as module
from sfm_match.stages.listed_matches import iter_matches
from sfm_match.stages.match_blocks import BLOCK, BlockPlan
from sfm_match.stages.state import FeatureSet, recorded_features, recorded_matches
from sfm_match.store.matches import read_block
from sfm_match.store.pair_table import PairTable

SMALL: dict[str, Any] = {"size": 256, "max_keypoints": 200}


@given(count=st.integers(2, 200), chosen=st.integers(1, 300), seed=st.integers(0, 99))
def test_blocks_go_by_rows_whatever_the_names(count: int, chosen: int, seed: int) -> None:
    """Images that were added later are in later units, whatever their names."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, count, (chosen, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    assume(len(pairs) > 0)
    block = (rng.permutation(count) // 16).astype(np.int32)
    parts = list(module._parts(block, PairTable.of_pairs(pairs, count)))
    keys = []
    for (row, column), part in parts:
        assert (np.sort(block[part], axis=1) == (row, column)).all()
        keys += [(row // module.ROWS, column, row, i, j) for i, j in part.tolist()]
    assert keys == sorted(keys)
    assert len({key for key, _ in parts}) == len(parts)
    assert sorted(key[3:] for key in keys) == [(i, j) for i, j in pairs.tolist()]


@given(count=st.integers(2, 90), chosen=st.integers(1, 300), seed=st.integers(0, 99))
def test_tiles_hold_every_pair_once(count: int, chosen: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"{i:03d}.jpg" for i in range(count)]
    units = {name: i // 64 for i, name in enumerate(names)}
    features = FeatureSet(Path("f"), {}, dict.fromkeys(names, 1), units, dict.fromkeys(names, "1:1"))
    pairs = np.unique(np.sort(rng.integers(0, count, (chosen, 2)), axis=1), axis=0)
    pairs = np.asarray(pairs[pairs[:, 0] < pairs[:, 1]], np.int32)
    tiles = list(
        module.plan_blocks(
            Path("m"), "f", names, features, PairTable.of_pairs(pairs[rng.permutation(len(pairs))], count)
        )
    )
    found = [(list(t.images)[i], list(t.images)[j]) for t in tiles for i, j in t.pairs]
    assert sorted(found) == [(names[i], names[j]) for i, j in pairs]
    assert len({t.path for t in tiles}) == len(tiles)
    assert all(len(t.images) <= 2 * BLOCK for t in tiles)
    again = list(module.plan_blocks(Path("m"), "f", names, features, PairTable.of_pairs(pairs, count)))
    assert [t.path for t in again] == [t.path for t in tiles]  # names depend on the pairs, not on their order


@pytest.fixture
def work(rendered: Path, tmp_path: Path) -> Path:
    sfm_match.extract(rendered, tmp_path, **SMALL)
    sfm_match.pairs(tmp_path, strategy="sequential", overlap=2)
    return tmp_path


def test_more_pairs_add_tiles(work: Path) -> None:
    assert sfm_match.match(work).done == 9
    before = {path.name for path in (work / "matches").iterdir()}
    sfm_match.pairs(work, strategy="exhaustive", overwrite=True)
    report = sfm_match.match(work)
    assert (report.done, report.cached) == (6, 9)
    assert before < {path.name for path in (work / "matches").iterdir()}


def test_the_report_says_which_kernels_matched(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfm_match.runtime.torch import TorchRuntime

    monkeypatch.setattr(TorchRuntime, "with_kernels", lambda _, reference: (reference, "matching by torch (a reason)"))
    report = sfm_match.match(work, device="torch")
    assert report.detail.endswith("; matching by torch (a reason)")


def test_another_threshold_replaces(work: Path) -> None:
    low = sfm_match.match(work, match_threshold=0.05).facts["matches"]
    with pytest.raises(UsageError, match=r"--match-threshold was 0.05, now 0.5"):
        sfm_match.match(work, match_threshold=0.5)
    report = sfm_match.match(work, threshold=0.5, overwrite=True)  # type: ignore[call-arg]  # its other name
    assert (report.done, report.cached) == (9, 0)
    assert report.facts["matches"] < low
    for path in (work / "matches").iterdir():
        assert min(float(m.scores.min()) for m in read_block(path).matches if len(m.scores)) >= 0.5


def test_a_damaged_tile_is_made_anew(work: Path) -> None:
    sfm_match.match(work)
    (tile,) = (work / "matches").iterdir()
    whole = read_block(tile).matches
    tile.write_bytes(tile.read_bytes()[:1000])
    assert sfm_match.match(work).done == 9
    for one, other in zip(whole, read_block(tile).matches, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)


def test_a_pair_in_two_files_is_one_pair(work: Path) -> None:
    """Of a part that was taken for dead, and wrote its file after another process had done its pairs."""
    sfm_match.match(work)
    (block,) = (work / "matches").iterdir()
    shutil.copyfile(block, block.with_name(f"{block.stem[:-8]}00000000.h5"))
    assert sfm_match.match(work).done == 0
    place = Workspace(work)
    collection = Collection.load(place)
    features = recorded_features(place, collection)
    pairs = [(a, b) for a, b, _ in iter_matches(recorded_matches(place, collection, features), features)]
    assert len(pairs) == len(set(pairs)) == 9
    assert sfm_match.import_(work).done > 0


def test_order_of_stages_is_explained(rendered: Path, tmp_path: Path) -> None:
    sfm_match.extract(rendered, tmp_path, **SMALL)
    with pytest.raises(NothingDone, match="run `sfm-match pairs` first"):
        sfm_match.match(tmp_path)
    with pytest.raises(NothingDone, match="run `sfm-match match` first"):
        sfm_match.import_(tmp_path)
    with pytest.raises(NothingDone, match="run `sfm-match import` first"):
        sfm_match.reconstruct(tmp_path)


def test_pairs_of_vanished_images_are_explained(work: Path) -> None:
    text = (work / "pairs.txt").read_text()
    (work / "pairs.txt").write_text(text + "gone.jpg\tview04.jpg\n")
    with pytest.raises(UsageError, match=r"line 10: not two images of this collection; run `sfm-match pairs` again"):
        sfm_match.match(work)


def planned(pairs: np.ndarray, count: int) -> list[BlockPlan]:
    names = [f"{i:03d}.jpg" for i in range(count)]
    units = {name: i // 64 for i, name in enumerate(names)}
    features = FeatureSet(Path("f"), {}, dict.fromkeys(names, 1), units, dict.fromkeys(names, "1:1"))
    return list(module.plan_blocks(Path("m"), "f", names, features, PairTable.of_pairs(pairs, count)))


def test_small_tiles_are_joined() -> None:
    """Pairs of a retrieval, a few in each pair of blocks: files are few, and none larger than a whole tile."""
    rng = np.random.default_rng(0)
    pairs = np.unique(np.sort(rng.integers(0, 2000, (4000, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    tiles = planned(pairs, 2000)
    apart = len(np.unique(np.sort(pairs // BLOCK, axis=1), axis=0))
    assert len(tiles) < apart / 10
    assert max(len(tile.images) for tile in tiles) <= 2 * BLOCK
    assert max(len(tile.pairs) for tile in tiles) <= BLOCK * BLOCK
    assert all(max(map(len, tile.groups)) <= BLOCK for tile in tiles)


def test_whole_tiles_are_two_blocks_in_an_order_that_reads_little() -> None:
    """Exhaustively, each group is a block, and a memory of a few blocks serves most tiles."""
    count = 16 * BLOCK
    tiles = planned(np.stack(np.triu_indices(count, 1), axis=1), count)
    blocks = [[name for name in tile.groups if name] for tile in tiles]
    assert {group for tile in blocks for group in tile} == {
        tuple(f"{i:03d}.jpg" for i in range(start, start + BLOCK)) for start in range(0, count, BLOCK)
    }
    held: list[tuple[str, ...]] = []
    reads = 0
    for tile in blocks:
        for group in tile:
            reads += group not in held
            held = [*(other for other in held if other != group), group][-(module.ROWS + 2) :]
    assert reads < 0.4 * len(tiles)  # by rows alone, nearly one a tile
