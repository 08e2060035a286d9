"""What a conversion leaves where it is stopped: nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sfm_match.errors import UsageError
from sfm_match.formats import staging
from sfm_match.formats.staging import staged


def results(folder: Path) -> Any:
    return SimpleNamespace(image_folder=folder / "photographs")


def fill(temporary: Path) -> None:
    (temporary / "images").mkdir()
    (temporary / "images" / "a.jpg").write_text("a")
    (temporary / "transforms.json").write_text("{}")


def test_all_comes(tmp_path: Path) -> None:
    with staged(results(tmp_path), tmp_path, ["images", "transforms.json"]) as temporary:
        fill(temporary)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "transforms.json"]
    with (
        pytest.raises(UsageError, match="images is there already"),
        staged(results(tmp_path), tmp_path, ["images", "transforms.json"]),
    ):
        pass


@pytest.mark.parametrize("committed", [0, 1])
def test_of_what_is_interrupted_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: int) -> None:
    """Also where the first of the two names has come already: the same command is to succeed afterwards."""
    (tmp_path / "mine.txt").write_text("mine")
    done: list[Path] = []

    def interrupted(temporary: Path, path: Path) -> None:
        if len(done) == committed:
            raise KeyboardInterrupt
        temporary.rename(path)
        done.append(path)

    monkeypatch.setattr(staging, "commit", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        staged(results(tmp_path), tmp_path, ["images", "transforms.json"]) as temporary,
    ):
        fill(temporary)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_as_it_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(results(tmp_path), tmp_path, ["transforms.json"]) as temporary:
        fill(temporary)
    assert list(tmp_path.iterdir()) == []
