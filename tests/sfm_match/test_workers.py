"""Two workers leave the same bytes in every file as one."""

from pathlib import Path

import pytest

import sfm_match
from sfm_match.errors import UsageError

SMALL = {"size": 384, "max_keypoints": 400}


def files(workspace: Path) -> dict[str, bytes]:
    """The content of every file of features and matches."""
    paths = [*workspace.glob("features/*"), *workspace.glob("matches/*")]
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


def test_the_same_bytes(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.collection.UNIT_SIZE", 2)
    alone = sfm_match.extract(rendered, tmp_path / "one", **SMALL)
    both = sfm_match.extract(rendered, tmp_path / "two", devices="cpu,cpu", **SMALL)
    assert len(files(tmp_path / "one")) == 3
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (both.done, both.facts) == (alone.done, alone.facts) == (6, alone.facts)
    assert both.detail.startswith("2 workers, ONNX Runtime")
    assert {"load", "decode", "network"} <= both.spent.keys()


def test_devices_that_cannot_be_had_or_mixed(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--device cuda: no NVIDIA GPU"):
        sfm_match.extract(rendered, tmp_path, devices="cpu,cuda")
    monkeypatch.setattr(
        "sfm_match.extractor.resolve_precision", lambda _, device: "fp32" if device == "cpu" else "fp16"
    )
    with pytest.raises(UsageError, match=r"--devices cpu,torch: precisions differ \(cpu fp32, torch fp16\)"):
        sfm_match.extract(rendered, tmp_path, devices="cpu,torch")
