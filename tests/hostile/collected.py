"""All hostile cases: `CASES` of every module named *_cases, and what its `generate(seed)` makes."""

import importlib
from collections.abc import Iterable
from pathlib import Path

from hostile.case import Case, unique


def cases(seeds: Iterable[int]) -> list[Case]:
    """The fixed cases, then those of each seed."""
    every: list[Case] = []
    places = list(seeds)
    for path in sorted(Path(__file__).parent.glob("*_cases.py")):
        module = importlib.import_module(f"hostile.{path.stem}")
        every += getattr(module, "CASES", [])
        generate = getattr(module, "generate", None)
        every += [one for seed in places for one in generate(seed)] if generate is not None else []
    return unique(every)
