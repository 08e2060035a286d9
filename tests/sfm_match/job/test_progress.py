"""What a running stage shows."""

import re
import time
from pathlib import Path

import pytest

from sfm_match import reconstruct
from sfm_match.job.progress import UNKNOWN, Progress, StageReport


def test_time_left_is_of_the_rate_of_late(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Half is there from an earlier run, the rest takes a second each."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("match", 1000, "pairs")
    shown.advance(500)
    left = []
    for _ in range(400):
        now[0] += 1.0
        shown.advance(1)
        said = re.search(r"([\d,]+)/1,000 pairs, .*/s, (\d+) s left", capsys.readouterr().err)
        if said is not None and now[0] > 50:  # a tenth of the job
            left.append(int(said[2]) / (1000 - int(said[1].replace(",", ""))))
    assert len(left) >= 30
    assert all(0.8 < one < 1.2 for one in left)


def test_where_the_time_went_is_said_where_it_is_asked_for() -> None:
    report = StageReport(
        "import", "pairs", done=15, seconds=2.0, spent={"verify": 1.5, "write": 0.5}, detail="6 images"
    )
    assert report.line() == "import 15 pairs, 2.0 s, 7.5/s; 6 images"
    assert report.line(verbose=True) == f"{report.line()} — verify 75%, write 25%: verify is the limit"


def test_the_mapper_tells_how_many_images_it_has_registered(workspace: Path) -> None:
    told: list[tuple[str, int, int]] = []
    reconstruct(workspace, overwrite=True, on_progress=lambda *one: told.append(one))
    registered = [done for what, done, total in told if (what, total) == ("map", 6)]
    assert registered[0] == 2
    assert registered[:5] == [2, 3, 4, 5, 6]
    assert ("refine", 1, 1) in told


def test_lines_for_people_do_not_change_what_is_for_scripts() -> None:
    report = StageReport("import", "pairs", done=15, seconds=0.01, detail="6 images, long", told=["6 images", "long"])
    assert report.lines() == ["import 15 pairs, 0.0 s; 6 images", "long"]
    assert report.line() == "import 15 pairs, 0.0 s; 6 images, long"
    assert report.as_json()["detail"] == "6 images, long"
    assert "told" not in report.as_json()


def test_the_bar_tells_the_rate_of_the_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half is there at once, then one comes a second: tqdm's own rate is far off for a long time."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("match", 1000, "pairs")
    shown.advance(500)
    for _ in range(60):
        now[0] += 1.0
        shown.advance(1)
    assert shown._bar.format_dict["rate"] == pytest.approx(1.0, rel=0.2)


def test_time_left_is_of_work_and_the_rate_of_what_people_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred pairs of a second each, then nine hundred of a hundredth."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    works = [100.0] * 100 + [1.0] * 900
    shown = Progress("verify", 1000, "pairs", sum(works))
    assert shown.seconds_left is None
    for work in works:
        now[0] += work / 100
        shown.advance(1, work)
        assert shown.seconds_left == pytest.approx(109 - now[0], abs=1e-6)
    assert "verify 10/1,000 pairs, 1.0/s, 99 s left" in capsys.readouterr().err


def test_the_bar_tells_the_time_left_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown = Progress("verify", 4, "pairs", 400.0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100.0)
    assert "0/4 [00:00<?" in str(shown._bar)
    shown.advance(1, 100.0)
    assert "1/4" in str(shown._bar)
    assert "<05:00" in str(shown._bar)
    shown.close()


def test_of_unknown_work_no_time_left_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("map", 100, "images", UNKNOWN)
    now[0] = 10.0
    shown.advance(20)
    assert capsys.readouterr().err == "map 20/100 images, 2.0/s, time left unknown\n"


def test_what_an_earlier_run_had_done_counts_for_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the time before the first result, once it is short against the rest."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("match", 1000, "pairs")
    shown.advance(500)
    for _ in range(5):
        now[0] += 1.0
        shown.advance(10)
        assert shown.seconds_left == pytest.approx(50 - now[0])
    late = Progress("extract", 100, "images")
    now[0] += 5.0
    late.advance(4)
    assert late.seconds_left == pytest.approx(96 * 5 / 4)
    for _ in range(5):
        now[0] += 1.0
        late.advance(4)
    assert late.seconds_left == pytest.approx(76 / 4)
