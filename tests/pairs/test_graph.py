"""Components, bridges, transitive pairs and repairs of the graph of verified pairs."""

from itertools import combinations, pairwise

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs.graph import Graph, SparseCertificate
from pairs.repair import repair
from pairs.transitive import transitive

GRAPHS = st.integers(2, 25).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] != e[1])),
    )
)


def flat(blocks) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for block in blocks for i, j in block}


def edges(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def path(nodes: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(nodes))


@given(GRAPHS)
def test_components_and_bridges_are_networkx_s(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    graph, theirs = Graph(count, edges(*pairs)), networkx.Graph(pairs)
    theirs.add_nodes_from(range(count))
    component = graph.components()
    groups = [set(np.flatnonzero(component == number).tolist()) for number in range(component.max() + 1)]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, networkx.connected_components(theirs)))
    assert graph.edge_count == theirs.number_of_edges()
    assert graph.degrees.tolist() == [theirs.degree(node) for node in range(count)]
    assert all(graph.neighbors(node).tolist() == sorted(theirs[node]) for node in range(count))
    walked = graph.breadth_first_order()
    assert sorted(walked.tolist()) == list(range(count))
    assert (np.diff(component[walked]) >= 0).all()  # one component after another
    assert graph.bridges() == sorted(tuple(sorted(bridge)) for bridge in networkx.bridges(theirs))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_many_nodes_of_a_narrow_type(dtype: type[np.integer]) -> None:
    count = 200_000  # squared, it takes more than 32 bits
    graph = Graph(count, np.array([(0, 1), (count - 1, 1), (3, 3), (count - 2, 70_000), (1, 0)], dtype))
    assert graph.edge_count == 3
    assert {node: graph.neighbors(node).tolist() for node in np.flatnonzero(graph.degrees).tolist()} == {
        0: [1],
        1: [0, count - 1],
        70_000: [count - 2],
        count - 2: [70_000],
        count - 1: [1],
    }


@given(GRAPHS, st.integers(1, 9))
def test_a_sparse_certificate_keeps_components_and_bridges(drawn: tuple[int, list[tuple[int, int]]], cut: int) -> None:
    count, pairs = drawn
    each_once = np.array(list(dict.fromkeys((min(pair), max(pair)) for pair in pairs)), np.int32).reshape(-1, 2)
    certificate, parts = SparseCertificate(count), np.array_split(each_once, cut)
    kept = np.concatenate([part[certificate.add(part)] for part in parts])
    whole, fewer = Graph(count, each_once), Graph(count, kept)
    assert len(kept) <= 2 * (count - 1)
    assert fewer.components().tolist() == whole.components().tolist()
    assert fewer.bridges() == whole.bridges()
    for first, second in whole.bridges():
        assert set(fewer.breadth_first(first, cut=second)) == set(whole.breadth_first(first, cut=second))


def test_a_sparse_certificate_of_a_long_chain_takes_few_steps() -> None:
    chain = np.array(path(list(range(50_000))), np.int32)
    certificate = SparseCertificate(50_000)
    assert certificate.add(chain[::-1]).all()
    assert not certificate.add(np.array([(0, 0), (7, 7)])).any()  # loops
    closing = np.array([(0, 49_999), (1, 49_998), (0, 49_998)])
    assert certificate.add(closing).all()  # of the second forest
    assert not certificate.add(np.array([(1, 49_999)])).any()  # that would close its cycle


@given(GRAPHS)
def test_transitive_is_two_steps_away(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    theirs = networkx.Graph(pairs)
    near = {tuple(sorted(e)) for e in theirs.edges}
    expected = {
        tuple(sorted(two))
        for middle in theirs
        for two in combinations(theirs[middle], 2)
        if tuple(sorted(two)) not in near
    }
    assert flat(transitive(count, edges(*pairs))) == expected


def test_long_chains_do_not_recurse() -> None:
    graph = Graph(20_000, edges(*path(list(range(20_000)))))
    assert len(graph.bridges()) == 19_999
    assert graph.components().max() == 0


def alike(*groups: list[int], count: int) -> np.ndarray:
    """(count, 1, count + 16) unit vectors: images of a group are near one another."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 1, 32)) * 0.02
    for number, group in enumerate(groups):
        vectors[group, 0, number] += 1
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def test_repair_joins_components_where_they_look_alike() -> None:
    verified = edges(*path([0, 1, 2, 3, 0]), *path([4, 5, 6, 4]))  # a square and a triangle: no bridge
    vectors = alike([2, 5], count=8)
    found = flat(repair(vectors, verified, verified, repair_pairs=1))
    assert (2, 5) in found  # the triangle's way to the rest
    assert any(7 in pair for pair in found)  # and image 7, alone, has one, too
    assert len(found) == 2


def test_repair_strengthens_bridges() -> None:
    left, right = list(range(6)), list(range(6, 12))
    verified = edges(*combinations(left, 2), *combinations(right, 2), (0, 6))
    vectors = alike([3, 9], [4, 8], count=12)
    found = flat(repair(vectors, verified, verified, repair_pairs=2))
    assert found == {(3, 9), (4, 8)}
    tried = np.concatenate((verified, edges((3, 9))))
    assert (3, 9) not in flat(repair(vectors, verified, tried, repair_pairs=5))


def test_nothing_to_repair() -> None:
    every = edges(*combinations(range(5), 2))
    assert flat(repair(alike(count=5), every, every)) == set()
    blind = np.zeros((6, 1, 4), np.float32)  # images without features
    assert flat(repair(blind, edges((0, 1)), edges((0, 1)))) == set()


@pytest.mark.parametrize("count", [0, 1])
def test_graphs_of_next_to_nothing(count: int) -> None:
    graph = Graph(count, edges())
    assert (len(graph.components()), len(graph.breadth_first_order()), graph.bridges()) == (count, count, [])
