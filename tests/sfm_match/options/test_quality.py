"""`--quality` sets what was not given, and only that, from wherever options come."""

import dataclasses
import pickle
from itertools import pairwise
from pathlib import Path

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.job_file import read_job
from sfm_match.options.quality import QUALITIES
from sfm_match.options.run import run_options
from sfm_match.options.stages import ExtractOptions


def size_and_keypoints(options: ExtractOptions) -> tuple[int, int]:
    return options.size, options.max_keypoints


@pytest.mark.parametrize("quality", QUALITIES)
def test_sets_size_and_keypoints(quality: str) -> None:
    assert size_and_keypoints(ExtractOptions(quality=quality)) == QUALITIES[quality]
    assert size_and_keypoints(run_options({"quality": quality}).extract) == QUALITIES[quality]


def test_the_default_is_medium() -> None:
    assert size_and_keypoints(ExtractOptions()) == QUALITIES["medium"] == (1024, 4096)


def test_each_quality_is_larger_than_the_one_before() -> None:
    for less, more in pairwise(QUALITIES.values()):
        assert less.size < more.size
        assert less.max_keypoints < more.max_keypoints


def test_what_is_given_wins_even_where_it_equals_the_default() -> None:
    assert size_and_keypoints(ExtractOptions(quality="high", size=1024)) == (1024, QUALITIES["high"].max_keypoints)
    given = run_options({"quality": "low", "max_keypoints": 4096}).extract
    assert size_and_keypoints(given) == (QUALITIES["low"].size, 4096)


def test_may_be_replaced() -> None:
    """As `from_mapping` does with options that were made before."""
    low = dataclasses.replace(ExtractOptions(size=512), quality="low")
    assert size_and_keypoints(low) == (512, QUALITIES["low"].max_keypoints)
    assert size_and_keypoints(dataclasses.replace(low, quality="extreme")) == (512, QUALITIES["extreme"].max_keypoints)
    sent = pickle.loads(pickle.dumps(ExtractOptions(quality="low")))  # to a worker
    assert sent == ExtractOptions(quality="low")
    assert size_and_keypoints(dataclasses.replace(sent, quality="high")) == QUALITIES["high"]


def test_only_what_it_sets_changes_results() -> None:
    high = ExtractOptions(quality="high")
    size, keypoints = QUALITIES["high"]
    assert high.inputs() == ExtractOptions(size=size, max_keypoints=keypoints).inputs()


def test_other_options_are_checked_against_what_it_sets() -> None:
    assert ExtractOptions(quality="high", tile=1200).size == QUALITIES["high"].size
    with pytest.raises(UsageError, match="--tile 1200: must be below --size, here 1024"):
        ExtractOptions(tile=1200)


def test_of_a_job_file(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("quality: low\nsize: 1024\n")
    assert size_and_keypoints(run_options(read_job(job)).extract) == (1024, QUALITIES["low"].max_keypoints)
    # as where the command line gives it beside the file
    assert size_and_keypoints(run_options(read_job(job) | {"quality": "high"}).extract) == (1024, 8192)


def test_unknown_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="--quality hi: accepted values are low, medium, high, extreme"):
        ExtractOptions(quality="hi")
