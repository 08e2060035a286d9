"""The options of a whole run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sfm_match.errors import UsageError, nearest
from sfm_match.options.base import run_name
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import GROUPS, ExtractOptions, ImportOptions, MatchOptions, ReconstructOptions


@dataclass(frozen=True)
class RunOptions:
    """The options of every stage."""

    extract: ExtractOptions = field(default_factory=ExtractOptions)
    pairs: PairsOptions = field(default_factory=PairsOptions)
    match: MatchOptions = field(default_factory=MatchOptions)
    import_: ImportOptions = field(default_factory=ImportOptions)
    reconstruct: ReconstructOptions = field(default_factory=ReconstructOptions)


def run_options(
    keywords: Mapping[str, Any],
    extract: ExtractOptions | None = None,
    pairs: PairsOptions | str | None = None,
    match: MatchOptions | None = None,
    import_: ImportOptions | None = None,
    reconstruct: ReconstructOptions | None = None,
) -> RunOptions:
    """Options given by name, by stage, or both: then names go before.

    Args:
        keywords: of any stage, by name.
        extract, pairs, match, import_, reconstruct: of a stage; `pairs` may be the name of a strategy.

    Raises:
        UsageError: an unknown name, or a value that is not accepted.
    """
    known = [run_name(f) for group in GROUPS for f in dataclasses.fields(group)]
    for name in keywords:
        if name not in known:
            raise UsageError(f"run: unknown option '{name}'{nearest(name, known)}")
    if isinstance(pairs, str):
        pairs = PairsOptions(strategy=pairs)
    chosen = RunOptions(
        ExtractOptions.from_mapping(keywords, extract),
        PairsOptions.from_mapping(keywords, pairs),
        MatchOptions.from_mapping(keywords, match),
        ImportOptions.from_mapping(keywords, import_),
        ReconstructOptions.from_mapping(keywords, reconstruct),
    )
    if chosen.extract.dummy_network:
        raise UsageError("--dummy-network: belongs to `extract`")
    return chosen
