"""The proof for GPU machines runs here, too, through the same code, and its report is drawn from its JSON."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def script(name: str, *arguments: object) -> str:
    command = [sys.executable, ROOT / "scripts" / name, *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quick_check_and_report(tmp_path: Path) -> None:
    script("gpu_check.py", "--device", "cpu", "--quick", "--out", tmp_path)
    (path,) = tmp_path.glob("*_gpu_check_cpu_quick.json")
    check = json.loads(path.read_text())
    assert {row["engine"] for row in check["parity"]} == {"torch", "ONNX Runtime, CPU, values bound"}
    for row in check["parity"]:
        assert row["keypoint_overlap"] > 0.99
        assert row["descriptor_cosine_least"] > 0.999
        assert row["images"] == 2
    engines = {"torch eager fp32", "torch AMP", "torch", "ONNX Runtime, CPU, values bound"}
    assert {row["engine"] for row in check["extraction"]} == engines
    assert {row["batch"] for row in check["extraction"]} == {1, 2}
    assert all(row["images_per_s"] > 0 for row in check["extraction"])
    assert all(row["pairs_per_s"] > 0 for row in check["matching"])
    assert check["ceiling"]["product_tflops"] > 0
    assert not [what for what in check["left_out"] if "parity" in what or "matching" in what], check["left_out"]

    script("gpu_report.py", path)
    text = path.with_suffix(".md").read_text()
    assert "| torch eager fp32 |" in text
    assert "100.0% of float32's keypoints" in text
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
