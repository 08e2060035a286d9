"""The latency table: every row that is here, what is left out, and its three forms."""

import json
from functools import partial
from pathlib import Path

import pytest
from jobs import sfm_match as command
from tiny import TINY

from exports.onnx_export import Shapes
from exports.registry import FAMILY
from sfm_match import bench
from sfm_match.commands.scene import Rectangle
from sfm_match.errors import NothingDone, UsageError
from sfm_match.models import Weights


@pytest.mark.parametrize(
    ("tiny", "backends"),
    [(True, "torch,tensorrt")]
    + [pytest.param(tiny, "torch,ort,tensorrt", marks=pytest.mark.slow) for tiny in (True, False)],
    ids=["tiny without exports", "tiny", "nano"],
)
def test_table_and_files(
    tiny: bool, backends: str, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiny:
        monkeypatch.setitem(FAMILY, "dedode-nano", TINY)
        one_size = partial(Shapes, (64, 96), 1, False, False)  # free ones take far longer to export
        monkeypatch.setattr("exports.command.any_size", lambda _, *count: one_size(*count))
    options = ["--random-weights", "--weights-dir", tmp_path / "weights", "--img-size", "64", "96", "--repeats", "2"]
    where = ["--images", rendered, "--out", tmp_path]
    done = command("bench", *options, *where, "--num-keypoints", "60", "--backends", backends)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["pairs"] == 3
    assert [cell["row"].split()[0] for cell in result["cells"]] == ["torch", "torch", *["ONNX"] * ("ort" in backends)]
    assert all(cell[figure] > 0 for cell in result["cells"] for figure in ("pair_ms", "image_ms", "match_ms"))
    assert "tensorrt" in result["left_out"]
    assert done.stdout == (tmp_path / "bench.md").read_text()
    assert "| Images to matches, ms a pair | 60 |" in done.stdout
    assert "Left out: tensorrt" in done.stdout
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"


def test_refusals(planes: list[Rectangle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.commands.scene.room", lambda: planes)  # it renders where it is given no images
    random = Weights(folder=tmp_path, random=True)
    with pytest.raises(UsageError, match="accepted are torch, ort, tensorrt"):
        bench(backends=["onnx"], weights=random)
    with pytest.raises(UsageError, match="accepted are 1 to 4096 at this size"):
        bench(size=(64, 64), weights=random)
    with pytest.raises(UsageError, match="accepted are dedode-nano"):
        bench(model="dedode", weights=random)
    with pytest.raises(UsageError, match="multiples of 56 for dedode-l-g"):
        bench(model="dedode-l-g", weights=random)
    with pytest.raises(UsageError, match="--repeats 0: accepted are 1 and more"):
        bench(repeats=0, weights=random)
    with pytest.raises(NothingDone, match="no image in it"):
        bench(tmp_path, weights=random)
    with pytest.raises(NothingDone, match="none of them is here"):
        bench(backends=["tensorrt"], weights=random)
    assert command("bench", "--num-keypoints", "many").returncode == 2


def test_tables_that_are_there_are_kept(tmp_path: Path) -> None:
    (tmp_path / "bench.md").write_text("mine")
    done = command("bench", "--out", tmp_path)
    assert done.returncode == 2
    assert "bench.md: it is there; add --overwrite" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bench.md"]
