"""The kit: one folder with all that a machine with torch and numpy needs, and nothing that it lacks."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gpu_kit
import pytest
from gpu.rows import END, read_rows

ROOT = Path(__file__).parents[2]
SECONDS = 600.0  # of a run, at the very most
# what a bare machine has: torch, numpy, and what those bring
BARE = """
from importlib.machinery import PathFinder
BANNED, find = set({banned!r}), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in BANNED else find(name, *rest)
"""
BANNED = ["h5py", "cv2", "PIL", "tqdm", "pooch", "requests", "threadpoolctl", "filelock", "safetensors", "onnx", "yaml"]
BANNED += ["onnxruntime", "onnxscript", "pycolmap", "typer", "matplotlib", "pytest", "tensorrt", "kornia"]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Without exported networks: exporting takes minutes."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the kit is made of a commit")
    folder = tmp_path_factory.mktemp("kit") / "gpu-kit"
    gpu_kit.make_kit(folder, [], [])
    yield folder


def test_what_is_in_it(kit: Path) -> None:
    assert gpu_kit.size_of(kit) < gpu_kit.LIMIT
    commit = gpu_kit.git("rev-parse", "HEAD")
    manifest = json.loads((kit / "MANIFEST.json").read_text())
    assert manifest["commit"] == commit == (kit / "COMMIT").read_text().strip()
    run = kit / "run.sh"
    assert run.stat().st_size < 2000
    assert run.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["sh", "-n", str(run)], check=False).returncode == 0
    assert (kit / "WHEELS.txt").is_file()
    for name in ("scripts/gpu_check.py", "scripts/gpu_report.py", "sfm_match/runtime/graphs/match.onnx"):
        assert (kit / name).is_file(), name
    for name in ("detector.onnx", "detector_fp16.onnx", "detector.safetensors"):
        assert (kit / "sfm_match" / "models" / "dedode_nano" / name).is_file(), name
    assert not list(kit.rglob(".git"))


def test_a_new_kit_keeps_wheels_and_results(kit: Path) -> None:
    for name in ("wheels", "results"):
        (kit / name).mkdir(exist_ok=True)
        (kit / name / "kept").write_text("kept")
    (kit / "stray").write_text("from an older commit")
    gpu_kit.make_kit(kit, [], [])
    assert not (kit / "stray").exists()
    for name in ("wheels", "results"):
        assert (kit / name / "kept").read_text() == "kept"
        shutil.rmtree(kit / name)
    assert [path.name for path in kit.parent.iterdir()] == [kit.name]


def test_a_kit_that_is_too_large_is_refused(tmp_path: Path, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kit.is_dir()
    monkeypatch.setattr(gpu_kit, "LIMIT", 1 << 20)
    with pytest.raises(gpu_kit.KitError, match="more than the 1,048,576"):
        gpu_kit.make_kit(tmp_path / "gpu-kit", [], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # its quick sibling is `test_gpu_parts.test_a_bare_machine_runs_what_it_can`
def test_it_runs_where_only_torch_and_numpy_are(kit: Path, tmp_path: Path) -> None:
    """No git, no installation; called twice, and the results are copied to where they are asked for."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BARE.format(banned=BANNED))
    programs, copied = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    copied.mkdir()
    for name in ("sh", "dirname", "ls", "mkdir", "cp", "touch"):
        (programs / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(programs), "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "site")}
    environment |= {
        "OUT": str(copied),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    command = [str(kit / "run.sh"), "--device", "cpu", "--quick", "--parts", "ceiling,matching-parity"]

    def called() -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    called()
    (path,) = (kit / "results").glob("*.jsonl")
    rows = read_rows(path)
    ended = {(row["part"], row["engine"], row["status"]) for row in rows if row["case"] == END}
    matched = {("matching-parity", "torch", "ok"), ("matching-parity", "torch-fused", "ok")}  # the last: left out
    assert ended == {("engines", "", "ok"), ("ceiling", "", "ok"), *matched}
    why = {row["case"]: row.get("why", "") for row in rows if row["part"] == "engines"}
    assert "onnxruntime" in why["cpu"]
    assert (copied / path.name).read_bytes() == path.read_bytes()
    report = (copied / f"{path.stem}.md").read_text()
    assert "onnxruntime" in report
    assert (kit / "COMMIT").read_text().strip()[:7] in path.read_text()
    called()
    assert len(list((kit / "results").glob("*.jsonl"))) == 1
    again = read_rows(path)
    assert again[: len(rows)] == rows
    assert {row["part"] for row in again[len(rows) :]} <= {"call"}
