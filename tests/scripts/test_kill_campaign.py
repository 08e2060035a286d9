"""Some kills at random times; `scripts/kill_campaign.py` makes hundreds."""

from pathlib import Path

from hostile import small_job
from kill_campaign import content, differences, kill_once, table, undisturbed


def test_killed_jobs_resume_to_equal_results(small: Path, tmp_path: Path) -> None:
    base = undisturbed(tmp_path, small / "images", small_job.WIDTH, processes=(False,))
    rows = [kill_once(base, tmp_path, number, seed=3) for number in (1, 3, 5, 7)]
    assert [(row["resumed"], row["different"], row["left"]) for row in rows] == [("", [], [])] * 4
    assert "| all | 4 | 0 | 4 | 0 | 0 | 0 |" in table(rows)
    pairs = tmp_path / "one" / "pairs.txt"
    pairs.write_text(pairs.read_text() + "view04.jpg\tview09.jpg\n")
    assert differences(content(tmp_path / "one"), base.content) == ["pairs"]
