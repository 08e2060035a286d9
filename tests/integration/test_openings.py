"""Nothing is found twice: how often a run opens the files of features and matches."""

from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import pytest

import sfm_match
from sfm_match.images.collection import Collection


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """Every HDF5 file that is opened for reading -> how often."""
    counts: Counter[Path] = Counter()
    real = h5py.File

    def counting(name: Any, mode: str = "r", **options: Any) -> h5py.File:
        if mode == "r":
            counts[Path(getattr(name, "path", name))] += 1
        return real(name, mode, **options)

    monkeypatch.setattr(h5py, "File", counting)
    return counts


def test_each_head_is_read_once(
    rendered: Path, tmp_path: Path, opened: Counter[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 2)
    monkeypatch.setattr("sfm_match.stages.match_blocks.BLOCK", 2)
    looks: list[int] = []
    update = Collection.updated

    def counted(*arguments: Any) -> Any:
        looks.append(1)
        return update(*arguments)

    monkeypatch.setattr(Collection, "updated", counted)
    work = tmp_path / "work"
    options: dict[str, Any] = {"size": 320, "max_keypoints": 512, "pairs": "exhaustive", "mapper": "none"}
    sfm_match.run(rendered, work, **options)
    features, matches = set(work.glob("features/*.h5")), set(work.glob("matches/*.h5"))
    assert (len(features), len(looks)) == (3, 1)
    assert len(matches) > 3
    # heads are known from writing; what is read: descriptors and keypoints, and matches, to tell the time left and then
    # to verify them
    assert {opened[name] for name in features} == {2}
    assert {opened[name] for name in matches} == {2}

    for known in (True, False):  # what is kept beside the folders tells it; where that is lost, each head once
        opened.clear()
        reports = sfm_match.run(rendered, work, **options)
        assert not any(report.done for report in reports)
        assert {opened[name] for name in features | matches} == {int(not known)}

        opened.clear()
        sfm_match.plan(rendered, work, **options)
        assert {opened[name] for name in features | matches} == {0}
        for name in ("features", "matches"):
            (work / f"{name}.state").unlink()
