"""What `convert` writes, read as others read it."""

from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.formats import FORMATS
from sfm_match.formats.hloc import pair_keys


@pytest.fixture(scope="module")
def work(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("formats") / "work"
    sfm_match.run(rendered, work, strategy="sequential", overlap=3, size=512, max_keypoints=1024)
    return work


def test_hloc(work: Path, tmp_path: Path) -> None:
    files = sfm_match.convert(work, to="hloc", out=tmp_path)
    assert [path.name for path in files] == ["features.h5", "matches.h5", "pairs.txt"]
    results = sfm_match.open(work)
    pairs = [line.split(" ") for line in files[2].read_text().splitlines()]
    assert [tuple(pair) for pair in pairs] == results.pairs
    with h5py.File(files[0]) as features, h5py.File(files[1]) as matches:
        for name, ours in results.iter_features():
            group = features[name]
            assert {key: group[key].shape for key in group} == {
                "keypoints": (len(ours.keypoints), 2),
                "scores": (len(ours.keypoints),),
                "descriptors": (64, len(ours.keypoints)),
                "image_size": (2,),
            }
            np.testing.assert_array_equal(group["keypoints"][()] + 0.5, ours.keypoints)
            np.testing.assert_array_equal(group["descriptors"][()].T, ours.descriptors)
            assert tuple(group["image_size"][()]) == (results.images[name].width, results.images[name].height)
        for first, second in results.pairs:
            group = matches[f"{first}/{second}"]
            found, scores = group["matches0"][()], group["matching_scores0"][()]
            assert (found.dtype, scores.dtype, len(found)) == (np.int16, np.float16, len(scores))
            rows = np.flatnonzero(found >= 0)
            matched = results.matches(first, second)
            np.testing.assert_array_equal(np.stack((rows, found[rows]), axis=1), matched.indices)
            np.testing.assert_array_equal(scores[rows], matched.scores)
            assert not scores[found < 0].any()


def test_names_that_hloc_cannot_tell_apart() -> None:
    with pytest.raises(UsageError, match=r"hloc gives both pairs the name a-b\.jpg/c\.jpg; rename the files"):
        pair_keys([("a-b.jpg", "c.jpg"), ("a/b.jpg", "c.jpg")], "--to hloc")
    with pytest.raises(UsageError, match=r"a b\.jpg: hloc's lists of pairs hold no names with spaces"):
        pair_keys([("a b.jpg", "c.jpg")], "--to hloc")


def test_models(work: Path, tmp_path: Path) -> None:
    sfm_match.convert(work, to="colmap-text", out=tmp_path)
    model = sfm_match.open(work).model
    text = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert (text.num_reg_images(), text.num_points3D()) == (model.num_reg_images(), model.num_points3D())
    (points,) = sfm_match.convert(work, to="ply", out=tmp_path)
    assert f"element vertex {model.num_points3D()}" in points.read_bytes()[:400].decode(errors="replace")


def test_what_cannot_be_written(work: Path, rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--to colmap: accepted values are .* \(did you mean 'colmap-text'\?\)"):
        sfm_match.convert(work, to="colmap", out=tmp_path)
    with pytest.raises(UsageError, match="that is the workspace"):
        sfm_match.convert(work, to="ply", out=work)
    begun = tmp_path / "begun"
    sfm_match.extract(rendered, begun, size=320, max_keypoints=64)
    for name in FORMATS:
        with pytest.raises(NothingDone, match="; run `sfm-match"):
            sfm_match.convert(begun, to=name, out=tmp_path / "out")


EVIL = [
    "../../evil.jpg",
    "/tmp/evil.jpg",
    "..\\..\\evil.jpg",
    "C:\\evil.jpg",
    "a\nb.jpg",
    "a/../../evil.jpg",
    "\x1b[2J.jpg",
]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("format_", FORMATS)
def test_names_do_not_leave_the_folder(format_: str, name: str, workspace: Path, tmp_path: Path) -> None:
    """Those of a model that somebody else wrote: it is refused, or nothing comes to be outside."""
    model = pycolmap.Reconstruction(str(workspace / "sparse" / "0"))
    model.images[min(model.images)].name = name
    model.write(str(workspace / "sparse" / "0"))
    out = tmp_path / "deep" / "out"
    before = {path for path in tmp_path.rglob("*") if workspace not in path.parents}
    try:
        written = sfm_match.convert(workspace, to=format_, out=out)
    except (UsageError, NothingDone) as error:
        assert str(error).isprintable() or "\n" in name
        assert not any(out.rglob("*"))
    else:
        assert format_ in ("hloc", "ply", "bundler")  # without the model's names, or with names as text only
        assert all(path.resolve().is_relative_to(out.resolve()) for path in written)
        if format_ == "bundler":
            assert name in (out / "list.txt").read_text(encoding="utf-8").splitlines()
    after = {path for path in tmp_path.rglob("*") if workspace not in path.parents}
    assert all(path == out.parent or path.is_relative_to(out) for path in after - before)
    assert not Path("/tmp/evil.jpg").exists()


def test_files_that_are_there_are_kept(work: Path, tmp_path: Path) -> None:
    for format_, name in (("hloc", "pairs.txt"), ("bundler", "list.txt"), ("ply", "points.ply")):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match=rf"{name} is there already; add --overwrite"):
            sfm_match.convert(work, to=format_, out=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == "mine"
        files = sfm_match.convert(work, to=format_, out=tmp_path, overwrite=True)
        assert tmp_path / name in files and (tmp_path / name).read_bytes() != b"mine"
        for file in files:
            file.unlink()
    (tmp_path / "sparse").mkdir()
    with pytest.raises(UsageError, match="sparse is there already; remove it"):
        sfm_match.convert(work, to="colmap-text", out=tmp_path, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="that is a file; must be a folder"):
        sfm_match.convert(work, to="ply", out=tmp_path / "file")
