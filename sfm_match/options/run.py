"""The options of a whole run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sfm_match.options.base import Options, options_of
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
    report: bool = True  # whether the job ends with a report

    def groups(self) -> tuple[Options, ...]:
        """Of each stage, in their order."""
        return self.extract, self.pairs, self.match, self.import_, self.reconstruct


def run_options(
    keywords: Mapping[str, object],
    extract: ExtractOptions | None = None,
    pairs: PairsOptions | str | None = None,
    match: MatchOptions | None = None,
    import_: ImportOptions | None = None,
    reconstruct: ReconstructOptions | None = None,
    *,
    command: str = "run",
) -> RunOptions:
    """Options given by name, by stage, or both: then names go before.

    Args:
        keywords: of any stage, by name.
        extract, pairs, match, import_, reconstruct: of a stage; `pairs` may be the name of a strategy.
        command: that they are for, in messages.

    Raises:
        UsageError: an unknown name, or a value that is not accepted.
    """
    if isinstance(pairs, str):
        keywords, pairs = {"strategy": pairs, **keywords}, None
    given = options_of(command, GROUPS, keywords)
    chosen = RunOptions(
        ExtractOptions.from_mapping(given, extract),
        PairsOptions.from_mapping(given, pairs),
        MatchOptions.from_mapping(given, match),
        ImportOptions.from_mapping(given, import_),
        ReconstructOptions.from_mapping(given, reconstruct),
    )
    for group in chosen.groups():
        group.check_for(command)
    return chosen
