"""The parts of gpu_check tell what is right from what is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from gpu import bare, engines, machine, networks, proofs, steps
from gpu.plan import Failed, LeftOut, Missing, Settings, Work

from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.models import BUILT_IN
from sfm_match.store.features import Features

ROOT = Path(__file__).parents[2]


def work(engine: str = "torch", model: str = "dedode-nano") -> Work:
    settings = Settings("cpu", True, (model,), (128,), (1,), (256,), 256, 0.1)
    return Work(settings, engine, model, set(), print)


def test_the_reference_of_matching_is_the_project_s() -> None:
    first, second = proofs._related((120, 90), 64)
    indices, scores = proofs.match_in_numpy(first, second)
    theirs = match_descriptors(first.astype(np.float32), second.astype(np.float32), 0.01, 20.0)
    np.testing.assert_array_equal(indices, theirs.indices)
    np.testing.assert_allclose(scores, theirs.scores, rtol=2e-3)
    assert len(indices) > 50


def test_matching_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = networks.runtime("torch", work().settings)
    assert proofs._match(work(), engine, 100, 80, 64)["equal"] == 1
    right = proofs.match_in_numpy
    monkeypatch.setattr(proofs, "match_in_numpy", lambda a, b: (right(a, b)[0][:, ::-1], right(a, b)[1]))
    with pytest.raises(Failed, match="not what numpy finds") as failure:
        proofs._match(work(), engine, 100, 80, 64)
    assert failure.value.seen["equal"] < 0.5


class Noisy:
    """An extractor; from its fourth call on one bit differs where it is asked to err."""

    def __init__(self, errs: bool) -> None:
        self.calls, self._errs = 0, errs
        self.workers = networks.TorchRuntime("cpu").workers

    def features(self, batch: Any, _clock: Any) -> dict[str, Features | str]:
        self.calls += 1
        shift = np.float32(batch.images.mean())
        if self._errs and self.calls > 3:
            shift = np.nextafter(shift, np.float32(1e9))
        points = np.full((3, 2), shift, np.float32)
        rows = points[:, 0], np.zeros((3, 8), np.float16)
        return {item.name: Features(points, *rows) for item in batch.items}


def noisy(errs: bool) -> Any:
    return Noisy(errs)  # as much of an extractor as the proofs need


def test_one_bit_is_seen() -> None:
    shapes = [(64, 64), (64, 32)]
    assert proofs._repeated(work(), noisy(False), shapes, 2)["differ"] == []
    with pytest.raises(Failed, match="runs differ"):
        proofs._repeated(work(), noisy(True), shapes, 2)
    assert proofs._workers(noisy(False), shapes, 2, 8)["differ"] == 0
    with pytest.raises(Failed, match="other bits"):
        proofs._workers(noisy(True), shapes, 2, 8)


def test_features_that_differ_fail() -> None:
    rng = np.random.default_rng(0)
    points = (rng.uniform(0, 500, (200, 2))).astype(np.float32)
    rows = networks.unit(rng.normal(size=(200, 16)))
    good = {"a": Features(points, points[:, 0], rows)}
    assert proofs.alike(good, good, half=False)["keypoint_overlap"] == 1
    moved = points.copy()
    moved[:20] += 200
    with pytest.raises(Failed, match="keypoints"):
        proofs.alike(good, {"a": Features(moved, points[:, 0], rows)}, half=False)
    with pytest.raises(Failed, match="cosine"):
        proofs.alike(good, {"a": Features(points, points[:, 0], rows[::-1])}, half=False)
    with pytest.raises(Failed, match="no keypoint found"):
        proofs.alike(good, {"a": "no keypoint found"}, half=False)


def test_nodes_are_counted_once() -> None:
    def node(name: str, provider: str, kind: str) -> dict[str, Any]:
        return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": kind}}

    events = [node("a", "CUDAExecutionProvider", "Conv")] * 2 + [node("b", "CPUExecutionProvider", "Shape")]
    events += [node("c", "CUDAExecutionProvider", "MemcpyToHost"), {"cat": "Session", "name": "run"}]
    found = engines._counted(events)
    assert found["nodes"] == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1}
    assert found["on_cpu"] == {"Shape": 1}
    assert found["memcpy"] == 1


def test_overlapping_kernels_are_busy_once() -> None:
    assert steps.union([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == pytest.approx(4)
    assert steps.union([]) == 0


def test_a_line_of_nvidia_smi() -> None:
    line = "NVIDIA H100 80GB HBM3, 580.65.06, 1980, 1980, 2619, 688.51, 700.00, 61, 5120, 99, 0x0000000000000044\n"
    found = machine.parsed(line)
    assert found["gpu"] == "NVIDIA H100 80GB HBM3"
    assert found["sm_mhz"] == 1980
    assert found["watts"] == 688.51
    assert found["throttled"] == "power cap, thermal, hardware"
    assert machine.parsed("H100, 1, [N/A]")["sm_mhz"] == "[N/A]"


def test_safetensors_are_read_without_their_package() -> None:
    (path, *_) = BUILT_IN["dedode-nano"].glob("*.safetensors")
    theirs, ours = safetensors.torch.load_file(path), bare.load_safetensors(path)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_what_needs_a_gpu_or_a_package_is_left_out() -> None:
    with pytest.raises(LeftOut, match="GPU"):
        networks.runtime("torch-fused", work().settings)
    with pytest.raises(Missing, match="no_such_package, no_other"):
        bare.require("numpy", "no_such_package", "no_other.within")


BLOCK = """
from importlib.machinery import PathFinder

NAMES, find = {names}, PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in NAMES else find(name, *rest)
"""


@pytest.fixture
def bare_machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Python that has torch and numpy, and none of what sfm_match needs beside them."""
    names = {*bare.PACKAGES, "pycolmap", "PIL", "yaml", "typer", "onnx", "onnxscript", "scipy", "kornia", "pytest"}
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(names=sorted(names - {"filelock"})))  # torch needs that
    yield {**os.environ, "PYTHONPATH": str(tmp_path)}


PROOFS = ("matching-parity", "bitwise", "features-parity", "redo")  # need neither ONNX Runtime nor an image library


@pytest.mark.parametrize("proofs", [PROOFS[:1], pytest.param(PROOFS, marks=pytest.mark.slow)], ids=["one", "all"])
def test_a_bare_machine_runs_what_it_can(proofs: tuple[str, ...], bare_machine: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    parts = ",".join(("engines", *proofs, "jpegs", "tests"))
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--device", "cpu", "--quick", "--out", str(out)]
    done = subprocess.run([*command, "--parts", parts], capture_output=True, text=True, env=bare_machine, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    from gpu.rows import read_rows

    rows = read_rows(out)
    assert not [row for row in rows if row.get("status") == "failed"]
    right = {row["part"] for row in rows if row.get("status") == "ok" and row["case"] != "end"}
    assert right == {"engines", *proofs}
    why = {row["part"]: row["why"] for row in rows if row.get("status") == "left out"}
    assert "onnxruntime" in next(row["why"] for row in rows if row["part"] == "engines" and row["case"] == "cpu")
    assert "cv2" in why["jpegs"]
    assert "pytest" in why["tests"]
