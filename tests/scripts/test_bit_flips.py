"""Flipped bits: what the campaign tells of some; `scripts/bit_flips.py` makes thousands."""

from pathlib import Path

import pytest
from bit_flips import BAD, Base, campaign, flip, judged, table
from campaign import job


@pytest.fixture
def base(small: Path) -> Base:
    return Base(small / "work")


def test_no_flip_is_harmless(base: Base, tmp_path: Path) -> None:
    row = judged(base, job.copied(base.workspace, tmp_path / "work"), "pairs.txt", thorough=False)
    assert (row["outcome"], row["different"]) == ("harmless", [])


def test_other_content_of_a_list_is_not_harmless(base: Base, tmp_path: Path) -> None:
    workspace = job.copied(base.workspace, tmp_path / "work")
    flip(workspace / "failed.csv", 0, 0)
    assert judged(base, workspace, "failed.csv", thorough=False)["outcome"] in ("mended", "unread", "found")


@pytest.mark.slow
def test_flipped_bits_are_harmless_or_noticed(tmp_path: Path) -> None:
    rows = campaign(60, 1, 2, None, tmp_path)
    assert not [row for row in rows if row["outcome"] in (*BAD, "unread")], table(rows)
