"""A finished workspace opens without reading its files again, and one that was changed does not."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sfm_match
from sfm_match.stages import import_, state
from sfm_match.store.shard import ShardError

OPTIONS: dict[str, Any] = {"size": 512, "max_keypoints": 1024, "pairs": "exhaustive", "mapper": "none"}


@pytest.fixture(scope="module")
def made(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job without a model, opened once more, not to be changed."""
    work = tmp_path_factory.mktemp("state") / "work"
    sfm_match.run(rendered, work, **OPTIONS)
    return work


def opened(work: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which files' heads were read, and `database` where it was read whole. Everything is up to date."""
    seen: set[str] = set()

    def watched(module: ModuleType, function: str, what: str) -> None:
        read = getattr(module, function)

        def noted(path: Path) -> Any:
            seen.add(what)
            return read(path)

        monkeypatch.setattr(module, function, noted)

    watched(state, "read_index", "features")
    watched(state, "read_head", "matches")
    watched(import_, "check_database", "database")
    reports = sfm_match.run(images, work, **OPTIONS)
    monkeypatch.undo()
    assert [(one.stage, one.done) for one in reports] == [(one.stage, 0) for one in reports]
    assert [one.cached for one in reports] == [6, 15, 15, 15]
    return seen


def test_nothing_is_read_where_nothing_changed(made: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(made, rendered, monkeypatch) == set()
    before = sfm_match.import_(made)
    (made / "sfm-match.json").touch()
    assert sfm_match.import_(made).detail == before.detail


@pytest.mark.parametrize("kind", ["features", "matches", "database"])
def test_what_was_touched_is_read_once(kind: str, made: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made / "database.db" if kind == "database" else next((made / kind).glob("*.h5"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert opened(made, rendered, monkeypatch) == {kind}
    assert opened(made, rendered, monkeypatch) == set()


def test_what_is_kept_says_what_the_files_say(made: Path) -> None:
    results = sfm_match.open(made)
    kept = results.feature_set, results.match_set
    for folder in ("features", "matches"):
        (made / f"{folder}.state").unlink()
    again = sfm_match.open(made)
    for one, other in zip(kept, (again.feature_set, again.match_set), strict=True):
        for name, mine in vars(one).items():
            theirs = getattr(other, name)
            assert (mine == theirs).all() if hasattr(mine, "shape") else mine == theirs, name
    assert not (made / "features.state").exists()  # nothing is written where nobody holds the workspace


def test_images_without_features_are_kept_with_their_reasons(rendered: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(rendered.iterdir())[:3]:
        (images / path.name).write_bytes(path.read_bytes())
    broken = images / "broken.jpg"
    broken.write_bytes(path.read_bytes()[:20_000])
    (images / "none.jpg").write_bytes(b"no image")
    sfm_match.extract(images, tmp_path / "work", size=256, max_keypoints=64)
    first = sfm_match.open(tmp_path / "work").feature_set
    assert first.failed.keys() == {"broken.jpg", "none.jpg"}
    (tmp_path / "work" / "features.state").unlink()
    assert sfm_match.open(tmp_path / "work").feature_set == first


def test_a_damaged_file_is_noticed(made: Path, rendered: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = next((made / "matches").glob("*.h5"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match="damaged"):
        _ = sfm_match.open(made).match_set
    assert sum(one.done for one in sfm_match.run(rendered, made, **OPTIONS)) > 0
    assert "damaged" in caplog.text
