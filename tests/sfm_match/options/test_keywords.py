"""The keywords that editors show are the options."""

from pathlib import Path

import pytest
from generate_keywords import TARGET, generated

import sfm_match
from sfm_match import api
from sfm_match.errors import UsageError
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.run import RunOptions, run_options
from sfm_match.options.stages import ExtractOptions


def test_the_file_is_what_the_options_make() -> None:
    assert TARGET.read_text(encoding="utf-8") == generated(), "run python scripts/generate_keywords.py"


def test_keywords_go_before_groups(tmp_path: Path) -> None:
    given = ExtractOptions(size=512, border=8)
    chosen = run_options({"size": 640, "strategy": "sequential"}, given, PairsOptions("exhaustive"))
    assert (chosen.extract.size, chosen.extract.border, chosen.pairs.strategy) == (640, 8, "sequential")
    assert run_options({}, pairs="retrieval").pairs == PairsOptions("retrieval")
    assert run_options({}) == RunOptions()
    listed = tmp_path / "pairs.txt"
    listed.touch()
    # a strategy by its name alone, and what it needs as a keyword
    assert run_options({"match_list_path": listed}, pairs="list").pairs == PairsOptions("list", match_list_path=listed)


def test_a_group_that_a_command_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dummy-network: not an option of `run`"):
        sfm_match.run(tmp_path, extract=ExtractOptions(dummy_network=True))
    with pytest.raises(UsageError, match="--mapper none"):
        sfm_match.reconstruct(tmp_path, mapper="none")


def test_progress_is_told(rendered: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    api.extract(
        rendered, tmp_path, ExtractOptions(size=320, max_keypoints=64), on_progress=lambda *args: told.append(args)
    )
    assert told[-1] == ("extract", 6, 6)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
