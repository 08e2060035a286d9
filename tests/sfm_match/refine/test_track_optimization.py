"""Relations made from known moves must give moves that fit them."""

import errno
import tempfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs.graph import Graph
from sfm_match.refine import all_tracks
from sfm_match.refine.all_tracks import Numbers, joined_tracks, optimize_all
from sfm_match.refine.track_optimization import Relations, join


def made(pairs: list[tuple[int, int]], truth: np.ndarray, affines: np.ndarray) -> Relations:
    """What a perfect alignment says where keypoints are wrong by `truth`."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    offsets = truth[second] - np.einsum("eij,ej->ei", affines, truth[first])
    return Relations(first, second, offsets.astype(np.float32), affines)


def optimized(relations: Relations, count: int, held: np.ndarray | None = None, cut: int = 1) -> np.ndarray:
    """(count, 2) moves, the relations told in so many parts."""
    parts = [Relations(*(values[number::cut] for values in vars(relations).values())) for number in range(cut)]
    with tempfile.TemporaryDirectory() as folder:
        return optimize_all(lambda: parts, count, Path(folder), held).of(slice(0, count))


def numbers(count: int) -> Numbers:
    return Numbers(count, Path(tempfile.gettempdir()))


def left(relations: Relations, moves: np.ndarray) -> np.ndarray:
    """(E,) pixels by which the relations are missed."""
    wanted = np.einsum("eij,ej->ei", relations.affines, moves[relations.first]) + relations.offsets
    return np.linalg.norm(wanted - moves[relations.second], axis=1)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_a_track_agrees(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.5, (count, 2)).astype(np.float32)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    linear = [np.eye(2) + rng.normal(0, 0.1, (2, 2)) for _ in range(count)]  # of each image from one plane
    affines = np.array([linear[j] @ np.linalg.inv(linear[i]) for i, j in pairs], np.float32)
    relations = made(pairs, truth, affines)
    moves = optimized(relations, count + 1)
    assert left(relations, moves).max() < 0.02
    assert not moves[count].any()  # without relations


def test_a_wrong_relation_among_right_ones_weighs_little() -> None:
    truth = np.random.default_rng(0).normal(0, 0.3, (8, 2)).astype(np.float32)
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    affines = np.broadcast_to(np.eye(2, dtype=np.float32), (len(pairs), 2, 2))
    relations = made(pairs, truth, affines)
    relations.offsets[3] += 4
    missed = left(relations, optimized(relations, 8))
    assert missed[3] > 5
    assert np.delete(missed, 3).max() < 0.2


def test_tracks_are_whole_whatever_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    pairs = [(10 * track + i, 10 * track + j) for track in range(30) for i in range(10) for j in range(i)]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))[:400]]
    affines = np.broadcast_to(np.eye(2, dtype=np.float32), (len(pairs), 2, 2))
    relations = made(pairs, rng.normal(0, 0.5, (300, 2)).astype(np.float32), affines)
    whole = optimized(relations, 300)
    monkeypatch.setattr(all_tracks, "_AT_ONCE", 25)
    monkeypatch.setattr(all_tracks, "_STEP", 8)
    np.testing.assert_allclose(optimized(relations, 300, cut=7), whole, atol=0.01)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_tracks(pairs: list[tuple[int, int]]) -> None:
    graph = Graph(20, np.array(pairs, np.int64).reshape(-1, 2))
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    affines = np.broadcast_to(np.eye(2, dtype=np.float32), (len(first), 2, 2))
    every = Relations(first, second, np.zeros((len(first), 2), np.float32), affines)
    parts = [Relations(*(values[number::3] for values in vars(every).values())) for number in range(3)]
    found = joined_tracks(parts, numbers(20))
    np.testing.assert_array_equal(found, joined_tracks([every], numbers(20)))
    assert len(np.unique(np.stack((found, graph.components())), axis=1).T) == len(set(graph.components().tolist()))
    assert len(set(found.tolist())) == len(set(graph.components().tolist()))
    for track in set(found.tolist()):
        assert np.flatnonzero(found == track)[0] == track


@pytest.mark.parametrize("mapped", [True, False])
def test_numbers_are_kept_when_memory_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool) -> None:
    if not mapped:
        monkeypatch.setattr("mmap.mmap", Mock(side_effect=OSError(errno.ENODEV, "No such device")))
    monkeypatch.setattr(all_tracks, "_WRITTEN", 1000)
    made = Numbers(4321, tmp_path)
    assert (made._map is not None) == mapped
    made.array[::7] = -1
    made.let_go()
    expected = np.arange(4321)
    expected[::7] = -1
    np.testing.assert_array_equal(made.array, expected)


def test_nothing_to_join() -> None:
    assert len(join([]).first) == 0
    assert not optimized(join([]), 3).any()


def test_held_keypoints_stay_and_others_come_to_them() -> None:
    relations = Relations(
        np.array([0, 1]),
        np.array([1, 2]),
        np.array([[1, 0], [0, 2]], np.float32),
        np.tile(np.eye(2, dtype=np.float32), (2, 1, 1)),
    )
    moves = optimized(relations, 3, np.array([True, False, False]))
    np.testing.assert_allclose(moves, [[0, 0], [1, 0], [1, 2]], atol=0.05)  # steps end below 0.002
    both = optimized(relations, 3, np.array([True, False, True]))
    assert not both[[0, 2]].any()
    assert both[1].any()
