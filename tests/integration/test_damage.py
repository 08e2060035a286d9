"""Files of a finished job that are damaged: made again in the same run, or named by the stage that needs them."""

import os
import shutil
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
    return Path(shutil.copytree(finished, tmp_path / "work"))


def flip(path: Path, place: Callable[[int], int]) -> None:
    content = bytearray(path.read_bytes())
    content[place(len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["features", "matches"])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda _: 100, id="head", marks=pytest.mark.slow),
        pytest.param(lambda _: 600, id="start", marks=pytest.mark.slow),
        pytest.param(lambda size: size - 700, id="end"),
    ],
)
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


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"schema": 3, "images": 5}', None])
def test_a_damaged_list_of_images_is_made_again(
    rendered: Path, finished: Path, work: Path, content: bytes | None
) -> None:
    whole = (work / "images.json").read_bytes()
    (work / "images.json").unlink()
    if content is None:
        (work / "images.json").mkdir()
    else:
        (work / "images.json").write_bytes(content)
    done = run(rendered, work)
    assert done.returncode == 0, done.stderr
    assert "(now images.json.damaged)" in done.stderr
    assert (work / "images.json").read_bytes() == whole
    assert stored(work) == stored(finished)


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_paths_that_are_not_text(rendered: Path, tmp_path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for images, work in ((strange, tmp_path / "work"), (rendered, strange)):
        done = run(images, work)
        assert done.returncode == 2
        assert "its name is not UTF-8; rename it" in done.stderr
