"""How many pairs a strategy will give, and in how many blocks they will be matched, without a list of them."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pairs import Block, PairsError
from pairs.auto import MOST, consecutive_share
from sfm_match.errors import UsageError
from sfm_match.options.pairs import PairsOptions, Strategy
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.stages.strategies import Sources


@dataclass(frozen=True)
class Counted:
    """Pairs of a strategy. What depends on features is counted before they are there: then it is a bound."""

    strategy: str  # as on the command line
    pairs: int
    blocks: int  # of matching, at most: small ones are joined
    exact: bool  # False: at most so many

    def shown(self) -> str:
        return f"{self.strategy}: {'' if self.exact else 'at most '}{self.pairs:,} pairs"


def count_pairs(sources: Sources) -> Counted:
    """Of the options' strategies.

    Raises:
        UsageError: a strategy cannot serve these images.
    """
    options, count = sources.options, sources.count
    parts = options.parts()
    every = Counted(_named(options), count * (count - 1) // 2, _triangle(-(-count // BLOCK)), exact=True)
    if "exhaustive" in parts:
        found = every
    else:
        try:
            found = _sum(every, [_of_strategy(strategy, sources, every) for strategy in sources.strategies()])
        except PairsError as error:
            raise UsageError(f"pairs: {error}") from error
    if not options.prune:
        return found
    most = found.pairs if options.prune_num_images is None else min(found.pairs, count * options.prune_num_images)
    return dataclasses.replace(found, pairs=most, blocks=min(found.blocks, most), exact=False)


def cheaper_ones(sources: Sources, than: int) -> list[Counted]:
    """Two ways with fewer pairs, those first that know something of the images."""
    count, names = sources.count, sources.names
    located = sum(header.location is not None for header in sources.job.collection.usable.values())
    ways: list[dict[str, object]] = []
    if consecutive_share(names) >= MOST:
        ways.append({"strategy": "sequential"})
    if located >= MOST * count:
        ways.append({"strategy": "spatial"})
    ways += [
        {"strategy": "retrieval"},
        {"strategy": "retrieval", "num_images": 10},
        {"strategy": "sequential", "overlap": 5},
        {"strategy": "sequential", "overlap": 2},
        {"strategy": "sequential", "overlap": 1},
    ]
    found: list[Counted] = []
    for way in ways:
        if len(found) == 2:
            break
        chosen = PairsOptions(**way)  # type: ignore[arg-type]
        counted = count_pairs(dataclasses.replace(sources, options=chosen))
        if counted.pairs < than:
            found.append(counted)
    return found


def _of_strategy(strategy: Strategy, sources: Sources, every: Counted) -> Counted:
    if strategy.bound:
        return _bound(sources.call(strategy.bound), every)
    return _counted(sources.stream(strategy), sources.count)


def _bound(pairs: int, every: Counted) -> Counted:
    pairs = min(pairs, every.pairs)
    return Counted("", pairs, min(pairs, every.blocks), exact=False)


def _sum(every: Counted, parts: list[Counted]) -> Counted:
    """Several strategies joined: at most all of theirs, and never more than all pairs."""
    pairs, blocks = sum(part.pairs for part in parts), sum(part.blocks for part in parts)
    exact = len(parts) == 1 and parts[0].exact
    return Counted(every.strategy, min(pairs, every.pairs), min(blocks, every.blocks), exact)


def _counted(stream: Iterator[Block], count: int) -> Counted:
    """As the strategy streams them."""
    pairs, side = 0, -(-count // BLOCK)
    found: set[int] = set()
    for some in stream:
        pairs += len(some)
        found.update((some.astype(np.int64) // BLOCK @ (side, 1)).tolist())
    return Counted("", pairs, len(found), exact=True)


def _triangle(side: int) -> int:
    return side * (side + 1) // 2


def _named(options: PairsOptions) -> str:
    """The strategy with the options that differ from their defaults, as on the command line."""
    shown = [options.strategy]
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        if f.name != "strategy" and value != f.default:
            flag = f.name.replace("_", "-")
            shown.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}")
    return " ".join(shown)
