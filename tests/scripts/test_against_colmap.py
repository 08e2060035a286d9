"""The comparison with COLMAP: what both are given, and what the table says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from against_colmap import OURS, SIFT, Task, ours, sift, summary, table, task_of
from PIL import Image


def test_a_shrunk_scene_has_shrunk_intrinsics(rendered: Path, tmp_path: Path) -> None:
    scene = tmp_path / "data" / "scenes" / "room"
    (scene / "images").mkdir(parents=True)
    for view in sorted(rendered.iterdir())[:2]:
        (scene / "images" / view.name).symlink_to(view)
    np.savetxt(scene / "K.txt", [[800, 0, 480], [0, 800, 360], [0, 0, 1]])
    task, truth = task_of("room@240", tmp_path / "data", 1024, tmp_path / "place")
    assert task.params == "200.0,200.0,120.0,90.0"
    assert truth == scene / "gt_cameras"
    sizes = []
    for path in sorted(Path(task.images).iterdir()):
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == [(240, 180)] * 2
    whole, _ = task_of("room", tmp_path / "data", 512, tmp_path)
    assert whole == Task(str(scene / "images"), 512, "800.0,800.0,480.0,360.0", False)


@pytest.mark.parametrize("method", [ours, sift])
def test_each_method_leaves_a_model(method: Any, rendered: Path, tmp_path: Path) -> None:
    stages = method(Task(str(rendered), 320, "800,800,480,360", False), tmp_path)
    assert {"extract", "match", "reconstruct"} <= stages.keys()
    assert (tmp_path / "sparse" / "0" / "cameras.bin").exists()


def test_ratios_are_of_medians() -> None:
    def run(seconds: float, registered: int) -> dict[str, Any]:
        return {"seconds": seconds, "stages": {"extract": 1.0}, "registered": registered}

    row = summary("room", {OURS: [run(s, 5) for s in (2.0, 9.0, 1.0)], SIFT: [run(s, 4) for s in (5.0, 6.0, 7.0)]})
    assert (row[OURS]["seconds"], row[SIFT]["seconds"], row["ratio"]) == (2.0, 6.0, 3.0)
    text = table([row], 3.0)
    assert "| room | 1.0, 0.0, 0.0, 0.0 | 2.0 | 1.0, 0.0, 0.0 | 6.0 | **3.00** | 5 / 4 | – |" in text
