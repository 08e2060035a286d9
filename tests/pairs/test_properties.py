"""What holds for every strategy: canonical pairs, each once, of images that are there, whatever their order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs import Block
from pairs.covisibility import covisibility
from pairs.exhaustive import exhaustive
from pairs.loops import loop_detection
from pairs.poses import poses
from pairs.prune import KeypointSubsets, above, best, scored
from pairs.repair import repair
from pairs.retrieval import retrieval
from pairs.sequential import sequential
from pairs.spatial import spatial
from pairs.transitive import transitive
from pairs.union import union


@dataclass
class World:
    """Images with everything that a strategy may look at."""

    names: list[str]
    positions: np.ndarray  # (N, 3)
    directions: np.ndarray  # (N, 3)
    vectors: np.ndarray  # (N, 1, V)
    observations: np.ndarray  # (N, P) bool
    verified: np.ndarray  # (E, 2)
    subsets: KeypointSubsets

    def reordered(self, order: np.ndarray) -> "World":
        """Image k of the new world is image order[k] of this one."""
        places = np.argsort(order)
        return World(
            [self.names[i] for i in order],
            self.positions[order],
            self.directions[order],
            self.vectors[order],
            self.observations[order],
            places[self.verified],
            KeypointSubsets(self.subsets.descriptors[order], self.subsets.places[order], self.subsets.counts[order]),
        )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def made(names: list[str], seed: int) -> World:
    rng = np.random.default_rng(seed)
    count = len(names)
    every = np.array(list(combinations(range(count), 2))).reshape(-1, 2)
    counts = rng.integers(1, 9, count)
    descriptors = unit(rng.normal(size=(count, 1, 16, 4))).astype(np.float16)
    for one, kept in zip(descriptors, counts, strict=True):
        one[:, kept:] = 0
    observations = rng.random((count, 400)) < rng.random((count, 1)) * 0.3
    observations[:, 0] = True
    return World(
        names,
        rng.uniform(0, 100, (count, 3)),
        unit(rng.normal(size=(count, 3))),
        unit(rng.normal(size=(count, 1, 16))).astype(np.float32),
        observations,
        every[rng.random(len(every)) < 2 / count],
        KeypointSubsets(descriptors, rng.uniform(-0.5, 0.5, (count, 16, 2)).astype(np.float16), counts),
    )


def by_covisibility(world: World) -> Iterator[Block]:
    images, points = np.nonzero(world.observations)
    return covisibility(len(world.names), images, points, 30)  # fewer would be a matter of ties


def by_score(world: World) -> Iterator[Block]:
    scores = scored(exhaustive(len(world.names), 4), world.subsets)
    return above(scores, 0.3)


STRATEGIES: dict[str, Callable[[World], Iterator[Block]]] = {
    "exhaustive": lambda w: exhaustive(len(w.names), 5),
    "sequential": lambda w: sequential(w.names, 3, True),
    "loop detection": lambda w: loop_detection(w.names, w.vectors, 2, 3, 4),
    "retrieval": lambda w: retrieval(w.vectors, 3),
    "spatial": lambda w: spatial(w.positions, 4, 40.0, False),
    "poses": lambda w: poses(w.positions, w.directions, 3, 80.0, 70.0),
    "covisibility": by_covisibility,
    "transitive": lambda w: transitive(len(w.names), w.verified),
    "repair": lambda w: repair(w.vectors, w.verified, w.verified, 3),
    "above a score": by_score,
    "best by score": lambda w: best(len(w.names), scored(exhaustive(len(w.names), 4), w.subsets, 2), 3),
    "union": lambda w: union(len(w.names), [sequential(w.names, 2), retrieval(w.vectors, 2), spatial(w.positions, 3)]),
}
NAMES = st.lists(
    st.from_regex(r"[ab]?/?[a-z ,é]{0,3}[0-9]{1,3}\.jpg", fullmatch=True), min_size=2, max_size=25, unique=True
)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(names=NAMES, seed=st.integers(0, 99))
def test_pairs_are_canonical_and_come_once(strategy: str, names: list[str], seed: int) -> None:
    blocks = list(STRATEGIES[strategy](made(sorted(names), seed)))
    assert all(block.dtype == np.int32 and block.ndim == 2 for block in blocks)
    found = [tuple(pair) for block in blocks for pair in block.tolist()]
    assert len(set(found)) == len(found)
    assert set(found) <= set(combinations(range(len(names)), 2))  # no image with itself; a subset of exhaustive


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(names=NAMES, seed=st.integers(0, 99))
def test_pairs_do_not_depend_on_the_order_of_images(strategy: str, names: list[str], seed: int) -> None:
    world = made(sorted(names), seed)
    other = world.reordered(np.random.default_rng(seed).permutation(len(names)))

    def named(world: World) -> set[frozenset[str]]:
        blocks = STRATEGIES[strategy](world)
        return {frozenset((world.names[i], world.names[j])) for block in blocks for i, j in block.tolist()}

    assert named(world) == named(other)
