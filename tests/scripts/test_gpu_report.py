"""The report says what rows say: goals reached or not, both roofs, and every reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu.goals import goals, good
from gpu.plan import NANO_MODEL, Settings, tasks
from gpu.report import markdown

ROOT = Path(__file__).parents[2]


def speed(engine: str, batch: int, rate: float, **more: Any) -> dict[str, Any]:
    row = {"part": "speed", "engine": engine, "model": "dedode-l-b", "case": f"784 px, batch {batch}", "status": "ok"}
    return {**row, "size": 784, "batch": batch, "images_per_s": rate, **more}


def matching(engine: str, rate: float, kernel: float | None, keypoints: int = 4096) -> dict[str, Any]:
    row = {"part": "matching-speed", "engine": engine, "model": "", "case": f"{keypoints} keypoints", "status": "ok"}
    return {**row, "keypoints": keypoints, "pairs_per_s": rate, "kernel_pairs_per_s": kernel}


ROWS: list[dict[str, Any]] = [
    {"part": "settings", "case": "settings", "settings": {"device": "cuda", "quick": False}},
    {"part": "call", "case": "0", "at": "2030-01-02T03:04:05", "command": "gpu_check.py", "machine": {"gpu": "H1"}},
    {"part": "ceiling", "engine": "", "model": "", "case": "machine", "status": "ok", "product_tflops": 700.0},
    speed("amp", 8, 40.0),
    speed("amp", 1, 30.0),
    speed("torch", 8, 100.0, share_of_layers=0.5, share_of_product=0.2),
    speed("tensorrt", 8, 168.0, share_of_layers=0.7, share_of_product=0.25),
    matching("cuda", 1200.0, None),
    matching("torch-fused", 4800.0, 16000.0),
    matching("torch-fused", 90000.0, 90000.0, keypoints=1024),
    {"part": "jpegs", "engine": "torch", "model": "dedode-nano", "case": "c", "status": "ok", "share_of_network": 0.9},
    {"part": "memory", "engine": "cuda", "model": "", "case": "drill", "status": "failed", "why": "no | split"},
    {"part": "pytest", "engine": "", "model": "", "case": "gpu", "status": "left out", "why": "pytest not installed"},
    {
        "part": "jpegs",
        "engine": "cuda",
        "model": "dedode-l-b",
        "case": "end",
        "status": "failed",
        "why": "killed by SIGSEGV",
    },
    {
        "part": "speed",
        "engine": "torch",
        "model": "dedode-l-b",
        "case": "end",
        "status": "ok",
        "seconds": 12.5,
        "before": {"sm_mhz": 1980, "throttling": []},
        "after": {"sm_mhz": 1410, "throttling": ["power cap"]},
    },
]


def test_goals_take_the_best_engine_and_the_best_baseline() -> None:
    found = goals(ROWS)
    assert [goal.measured for goal in found] == [pytest.approx(168 / 40), 0.7, 4800.0, 16000.0, None]
    assert [goal.reached for goal in found] == [True, True, False, True, None]
    assert found[0].by == "tensorrt, 784 px, batch 8"


def test_a_failed_row_reaches_no_goal() -> None:
    rows = [{**row, "status": "failed"} if row.get("engine") == "tensorrt" else row for row in ROWS]
    assert [goal.measured for goal in goals(rows)][:2] == [pytest.approx(2.5), 0.5]


def test_the_row_that_closes_a_task_is_no_figure() -> None:
    end = {"part": "matching-speed", "engine": "torch", "model": "", "case": "end", "status": "ok", "seconds": 3.0}
    assert not good([end], "matching-speed")
    assert "| – | torch |" not in markdown([end])


def test_without_a_baseline_no_speed_up_is_claimed() -> None:
    rows = [row for row in ROWS if row.get("engine") != "amp"]
    assert goals(rows)[0].measured is None
    assert goals(rows)[0].reached is None


def test_markdown_tells_everything() -> None:
    text = markdown(ROWS)
    for line in (
        "| L-B at 784²: times torch AMP | 4 | 4.2 | reached | tensorrt, 784 px, batch 8 |",
        "| 4096 keypoints: pairs/s end to end | 5,000 | 4,800 | not reached | torch-fused, 4096 keypoints |",
        "| L-B from JPEGs: share of the network alone | 0.8 | – | not measured |  |",
        "| dedode-l-b | 784 | tensorrt | 8 | 168 | 4.2 | 0.25 | 0.7 | – |",
        "| dedode-l-b | 784 | torch AMP (baseline) | 30 | 40 |",
        "- memory, cuda, drill: no \\| split",
        "- jpegs, cuda, dedode-l-b, the whole part: killed by SIGSEGV",
        "- pytest, gpu: pytest not installed",
        '| speed | torch | dedode-l-b | 12.5 | 1,980 → 1,410 | [] → ["power cap"] |',
    ):
        assert line in text.splitlines(), line
    assert "say nothing about a GPU" not in text


def test_a_run_on_a_cpu_is_named_as_one() -> None:
    rows = [{"part": "settings", "case": "settings", "settings": {"device": "cpu", "quick": True}}]
    text = markdown(rows)
    assert "say nothing about a GPU" in text
    assert text.count("not measured") == 5


def test_what_is_not_done_yet_is_named() -> None:
    settings = Settings("cpu", True, (NANO_MODEL,), (128,), (1,), (256,), 256, 0.1)
    every = list(tasks(settings, {"torch"}.__contains__))
    rows: list[dict[str, Any]] = [{"part": "settings", "case": "settings", "settings": settings.as_json()}]
    rows += [{"part": "engines", "engine": "", "model": "", "case": "torch", "status": "ok"}]
    rows += [{**task.head, "case": "end", "status": "ok"} for task in every[:-1]]
    text = markdown(rows)
    assert text.count("## Not done yet") == 1
    last = ", ".join(filter(None, every[-1].head.values()))
    assert text.split("## Not done yet")[1].splitlines()[4] == f"- {last}"
    assert "## Not done yet" not in markdown([*rows, {**every[-1].head, "case": "end", "status": "failed", "why": "x"}])


def test_the_script_reads_a_torn_file_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_text(lines + '{"part": "speed", "engi')
    command = [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), str(path), str(tmp_path / "absent.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "absent.jsonl" in done.stderr
    assert path.with_suffix(".md").read_text() == markdown(ROWS)
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
