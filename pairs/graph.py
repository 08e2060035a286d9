"""The graph of images and verified pairs: its components and its bridges."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.integer]  # (E, 2)


class Graph:
    """Undirected; each edge once."""

    def __init__(self, count: int, edges: Edges) -> None:
        self.count = count
        low, high = edges.reshape(-1, 2).T
        apart = low != high
        if not apart.all():
            low, high = low[apart], high[apart]
        both = np.empty(2 * len(low), np.int64)  # node and neighbour; in place, as there may be millions
        for codes, node, other in ((both[: len(low)], low, high), (both[len(low) :], high, low)):
            np.multiply(node, count, out=codes, dtype=np.int64)
            codes += other
        both.sort()  # `np.unique` takes many times the memory
        new = np.ones(len(both), bool)
        np.not_equal(both[1:], both[:-1], out=new[1:])
        if not new.all():
            both = both[new]
        self._starts: NDArray[np.int64] = np.searchsorted(both, np.arange(count + 1) * count)
        self._there: NDArray[np.integer] = np.empty(len(both), np.int32 if count < 1 << 31 else np.int64)
        np.remainder(both, max(count, 1), out=self._there, casting="unsafe")

    @property
    def edge_count(self) -> int:
        """Of edges between two nodes, each once."""
        return len(self._there) // 2

    @property
    def degrees(self) -> NDArray[np.int64]:
        """(count,) neighbours of each node."""
        return self._starts[1:] - self._starts[:-1]

    def neighbors(self, node: int) -> NDArray[np.integer]:
        """Ascending."""
        return self._there[self._starts[node] : self._starts[node + 1]]

    def components(self) -> NDArray[np.int64]:
        """(count,) the number of each node's component, by its first node."""
        component = np.empty(self.count, np.int64)
        for number, nodes in enumerate(self._parts()):
            component[nodes] = number
        return component

    def breadth_first(self, start: int, cut: int = -1, most: int | None = None) -> NDArray[np.int64]:
        """Nodes by steps from `start`, itself first, as if it had no edge to `cut`; `most` of them, or all."""
        seen, order = {start, cut}, [start]
        most = self.count if most is None else most
        for node in order:
            if len(order) >= most:
                break
            for other in self.neighbors(node).tolist():
                if other not in seen:
                    seen.add(other)
                    order.append(other)
        return np.array(order[:most], np.int64)

    def breadth_first_order(self) -> NDArray[np.int64]:
        """(count,) all nodes, those of a component by steps from its first one: neighbours are not far apart."""
        return np.concatenate((np.empty(0, np.int64), *self._parts()))

    def _parts(self) -> Iterator[NDArray[np.int64]]:
        """The nodes of each component, by steps from its first one."""
        seen = np.zeros(self.count, bool)
        for node in range(self.count):
            if not seen[node]:
                nodes = self.breadth_first(node)
                seen[nodes] = True
                yield nodes

    def bridges(self) -> list[tuple[int, int]]:
        """Edges i < j without which a component would fall in two (Tarjan, "A note on finding the bridges", 1974)."""
        order = np.full(self.count, -1, np.int64)  # in which a walk in depth comes to each node
        low = np.zeros(self.count, np.int64)  # the earliest node that is reached from below, but by the edge walked
        found, time = [], 0
        for root in range(self.count):
            if order[root] >= 0:
                continue
            order[root] = low[root] = time
            time += 1
            walk = [(root, -1, iter(self.neighbors(root).tolist()))]
            while walk:
                node, parent, others = walk[-1]
                other = next(others, None)
                if other is None:
                    walk.pop()
                    if parent >= 0:
                        low[parent] = min(low[parent], low[node])
                        if low[node] > order[parent]:
                            found.append((min(node, parent), max(node, parent)))
                elif order[other] < 0:
                    order[other] = low[other] = time
                    time += 1
                    walk.append((other, node, iter(self.neighbors(other).tolist())))
                elif other != parent:
                    low[node] = min(low[node], order[other])
        return sorted(found)


class SparseCertificate:
    """Of very many edges, told some at a time, those that keep the components and the bridges: less than two a node.

    They are a spanning forest, and a spanning forest of the other edges: of every cut there is an edge where the graph
    has one, and a second one where it has more (Nagamochi & Ibaraki, "A linear-time algorithm for finding a sparse
    k-connected spanning subgraph of a k-connected graph", Algorithmica 1992).

    Args:
        count: of nodes.
    """

    def __init__(self, count: int) -> None:
        self._forests = np.arange(count), np.arange(count)  # of each node, one before it in its tree or itself

    def add(self, edges: Edges) -> NDArray[np.bool_]:
        """(E,) which of these edges are kept. No edge twice: it would count as another."""
        kept = np.zeros(len(edges), bool)
        for forest in self._forests:
            left = np.flatnonzero(~kept)
            kept[left[_joining(forest, edges[left])]] = True
        return kept


def _joining(forest: NDArray[np.int64], edges: Edges) -> NDArray[np.int64]:
    """Which edges, by their places, join trees of a forest without closing a cycle. They are joined."""
    chosen, left = [np.empty(0, np.int64)], np.arange(len(edges))
    while True:
        roots = np.sort(forest[edges[left]], axis=1)
        apart = roots[:, 0] != roots[:, 1]
        left, roots = left[apart], roots[apart]
        if not len(left):
            return np.concatenate(chosen)
        tree, first = np.unique(roots[:, 1], return_index=True)  # each tree goes to one that comes before it
        forest[tree] = roots[first, 0]
        chosen.append(left[first])
        while ((further := forest[forest]) != forest).any():
            forest[:] = further
