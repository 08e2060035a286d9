"""Files of a finished job that are damaged: made again in the same run, or named by the stage that needs them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import sfm_match as command
from jobs import stored

OPTIONS = ("--size", "256", "--max-keypoints", "300")


@pytest.fixture(scope="module")
def finished(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a database."""
    work = tmp_path_factory.mktemp("damage") / "work"
    done = run(rendered, work)
    assert done.returncode == 0, done.stderr
    return work


def run(images: Path, work: Path):
    return command("run", "--images", images, "--workspace", work, *OPTIONS, "--mapper", "none", "--no-report")


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "work"))


def flip(path: Path, place: Callable[[int], int]) -> None:
    content = bytearray(path.read_bytes())
    content[place(len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["features", "matches"])
@pytest.mark.parametrize("place", [lambda _: 100, lambda _: 600, lambda size: size - 700], ids=["head", "start", "end"])
def test_a_run_makes_it_again(
    rendered: Path, finished: Path, work: Path, kind: str, place: Callable[[int], int]
) -> None:
    (path,) = (work / kind).glob("*.h5")
    flip(path, place)
    (work / "database.db").unlink()
    done = run(rendered, work)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{path}: damaged (") == 1
    assert f"moved to {path.name}.damaged" in done.stderr
    (work / kind / f"{path.name}.damaged").unlink()
    assert stored(work) == stored(finished)


def test_damage_that_only_matching_sees(rendered: Path, finished: Path, work: Path) -> None:
    """In the descriptors: the heads are whole, and the database does not hold them."""
    (features,), (matches,) = work.glob("features/*.h5"), work.glob("matches/*.h5")
    size = features.stat().st_size
    flip(features, lambda _: size // 2)
    matches.unlink()
    done = command("match", "--workspace", work)
    assert done.returncode == 3
    assert done.stderr.count("\n") <= 2, done.stderr
    assert "moved to 00000.h5.damaged: `sfm-match extract` makes it again" in done.stderr
    assert not list((work / "matches").iterdir())
    done = run(rendered, work)
    assert done.returncode == 0, done.stderr
    (work / "features" / "00000.h5.damaged").unlink()
    assert stored(work) == stored(finished)


def test_import_names_damaged_matches(work: Path) -> None:
    (path,) = work.glob("matches/*.h5")
    flip(path, lambda size: size - 700)
    before = (work / "database.db").read_bytes()
    done = command("import", "--workspace", work, "--overwrite")
    assert done.returncode == 3
    assert f"{path}: damaged (" in done.stderr
    assert f"moved to {path.name}.damaged: `sfm-match match` makes it again" in done.stderr
    assert (work / "database.db").read_bytes() == before
    again = command("match", "--workspace", work)
    assert again.returncode == 0, again.stderr


def test_a_folder_in_the_place_of_a_file(rendered: Path, finished: Path, work: Path) -> None:
    (path,) = work.glob("features/*.h5")
    path.unlink()
    path.mkdir()
    done = run(rendered, work)
    assert done.returncode == 0, done.stderr
    assert (work / "features" / "00000.h5.damaged").is_dir()
    (work / "features" / "00000.h5.damaged").rmdir()
    assert stored(work) == stored(finished)
